"""The first operation that is wrong, from what of the reference was found in the artifact.

A converter folds: a convolution that swallowed its batch norm has no tensor of its own, though all is well. So a
tensor isn't wrong because it is missing, only where what hangs on it is missing too. Its *support* is the SQNR at
which it, or one product with weights made of it, or else all of its consumers were found; it is wrong where that is
below the bar. Moves (reshape, transpose)
that a converter does in its own way are passed through. The culprit is a wrong operation whose inputs are all right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..parity import BARS_DB, CEILING_DB
from .match import Matches
from .record import Node, Tap

FOLDED_DB = 8.0
"""A tensor this far below its support isn't there: noise grows along the way, and only averaging heals some of it."""
DROP_DB, NEAR_DB = 25.0, 30.0
"""A step down by so much, to so little above the bar, is a fault that grows beyond the bar later. (Healthy networks
lose at most 8 dB in one step.)"""


_PRODUCTS = ("conv", "linear", "dense", "gemm", "matmul", "mm", "einsum", "fully")


def is_product(kind: str) -> bool:
    """Whether a type of operation multiplies by weights, or two tensors, and adds up."""
    lowered = kind.lower()
    return "convert" not in lowered and any(word in lowered for word in _PRODUCTS)


@dataclass(frozen=True)
class Fault:
    """Where it broke.

    Attributes:
        index: the reference's node.
        group: it and those after it that the artifact holds in one operation with it.
        before_db: the lowest SQNR among its inputs.
        at_db: its own.
        operation: the artifact's node, where that was found on the way.
    """

    index: int
    group: list[int]
    before_db: float
    at_db: float | None
    operation: int | None = None


@dataclass
class Support:
    """What of one side's graph was found in the other's.

    Attributes:
        own: SQNR of each node's best match; None without one.
        owner: whether nothing else resembles that match more.
        db: its support; infinity where nothing hangs on it.
        ok: whether nothing is wrong up to here.
        bar: what each must hold, in dB.
        folds: whether the other side may lack tensors of this one, so that the best match may be a stranger.
    """

    nodes: Sequence[Node]
    own: Sequence[float | None]
    owner: Sequence[bool]
    db: list[float]
    ok: list[bool]
    bar: float
    folds: bool = True

    @classmethod
    def of(
        cls, tap: Tap, own: Sequence[float | None], owner: Sequence[bool], bar: float, folds: bool = True
    ) -> Support:
        """From the best matches of a tap's nodes."""
        nodes, consumers = tap.nodes, tap.consumers()
        db = [math.inf] * len(nodes)
        for i in reversed(range(len(nodes))):
            mine = own[i]
            found = [-math.inf if mine is None else mine]
            if not nodes[i].is_output:
                found.append(min((db[j] for j in consumers[i]), default=math.inf))
                # What was made right of it shows that it was right; a threshold or a maximum would not.
                found += [db[j] for j in consumers[i] if is_product(nodes[j].type)]
            db[i] = max(found)
        ok: list[bool] = []
        for i, node in enumerate(nodes):
            passed = node.moves and not node.is_output and bool(node.inputs) and all(ok[j] for j in node.inputs)
            ok.append(node.fixed or node.is_input or db[i] >= bar or passed)
        return cls(nodes, own, owner, db, ok, bar, folds)

    def visible(self, index: int) -> bool:
        """Whether a node's own tensor was found."""
        mine = self.own[index]
        return mine is not None and mine >= self.bar

    def there(self, index: int) -> bool:
        """Whether its best match is the tensor itself, however wrong, and no stranger of its size."""
        mine, db = self.own[index], self.db[index]
        if mine is None or not self.folds:
            return mine is not None
        seen = self.bar > 0 and mine >= self.bar
        return seen or (self.owner[index] and (math.isinf(db) or mine > db - FOLDED_DB))

    def first_wrong(self) -> list[int]:
        """Wrong nodes whose inputs are all right."""
        nodes = self.nodes
        return [i for i in range(len(nodes)) if not self.ok[i] and all(self.ok[j] for j in nodes[i].inputs)]

    def back(self, index: int, stop: Callable[[int], bool]) -> tuple[set[int], set[int]]:
        """The nodes before this one, up to inputs and those that `stop` names: where it ended, and what it passed."""
        ends: set[int] = set()
        passed: set[int] = set()
        todo = list(self.nodes[index].inputs)
        while todo:
            i = todo.pop()
            if i in ends or i in passed or self.nodes[i].fixed:
                continue
            if self.nodes[i].is_input or stop(i):
                ends.add(i)
            else:
                passed.add(i)
                todo += self.nodes[i].inputs
        return ends, passed

    def level(self, index: int) -> float:
        """The lowest SQNR that a node's inputs came with."""
        ends, _ = self.back(index, self.there)
        return min((self.own[i] or 0.0 for i in ends if not self.nodes[i].is_input), default=CEILING_DB)


def locate(support: Support, reference: Tap, artifact: Tap) -> Fault | None:
    """The first wrong operation of an artifact whose precision has a bar that each tensor must hold."""
    starts = support.first_wrong()
    if not starts:
        return None
    chosen = _before(support, _chosen(reference, support, starts))
    return _wrong_move(reference, artifact, support, chosen) or _fault(reference, support, chosen)


def noisiest(support: Support) -> Fault | None:
    """The operation that adds most noise, as a share of the signal, where a precision makes noise all along."""
    added = {
        i: _share(support.own[i]) - _share(support.level(i))
        for i, node in enumerate(support.nodes)
        if not (node.fixed or node.is_input) and support.there(i)
    }
    worst = max(added, key=lambda i: added[i], default=None)
    if worst is None or added[worst] <= 0:
        return None
    _, folded = support.back(worst, support.there)
    group = sorted(i for i in folded | {worst} if i == worst or not support.nodes[i].moves)
    return Fault(group[0], group, support.level(worst), support.own[worst])


def _share(db: float | None) -> float:
    """Noise over signal; a tensor that has nothing to do with the reference counts as all noise."""
    return 1.0 if db is None else min(10 ** (-db / 10), 1.0)


def _chosen(reference: Tap, support: Support, starts: Sequence[int]) -> int:
    """Of several first wrong ones the first that has something to show.

    In front of a join, one branch's fault takes away the support of whatever the converter folded in the others
    (the scaling of a query, say, when the keys are wrong). Such a branch consists of types that are never seen.
    """
    if len(starts) == 1:
        return starts[0]
    seen = _seen(support)
    consumers = reference.consumers()
    causes = _causes(reference, support, starts)
    for start in starts:
        region = _region(start, consumers, causes)
        if any(seen.get(reference.nodes[i].type, 0.5) >= 0.5 for i in region if not reference.nodes[i].moves):
            return start
    return starts[0]


def _seen(support: Support) -> dict[str, float]:
    """How often a type of operation has a tensor of its own where all is well, as a share."""
    counts: dict[str, list[bool]] = {}
    for i, node in enumerate(support.nodes):
        if support.ok[i] and not node.fixed and not node.is_input:
            counts.setdefault(node.type, []).append(support.visible(i))
    return {kind: sum(found) / len(found) for kind, found in counts.items()}


def _causes(reference: Tap, support: Support, starts: Iterable[int]) -> list[set[int]]:
    """For each wrong node the first wrong ones that it hangs on."""
    first = set(starts)
    causes: list[set[int]] = []
    for i, node in enumerate(reference.nodes):
        mine = {i} if i in first else set()
        causes.append(mine.union(*(causes[j] for j in node.inputs)) if not support.ok[i] else set())
    return causes


def _region(start: int, consumers: Sequence[Sequence[int]], causes: Sequence[set[int]]) -> list[int]:
    """The wrong nodes that hang on this start alone."""
    found, todo = [], [start]
    while todo:
        i = todo.pop()
        if i not in found and causes[i] == {start}:
            found.append(i)
            todo += consumers[i]
    return found


def _before(support: Support, index: int) -> int:
    """The same, or an operation before it where the SQNR fell steeply without passing the bar.

    Only in fp32: coarser precisions lose that much at their first operation.
    """
    if support.bar < BARS_DB["fp32"]:
        return index
    _, ancestors = support.back(index, lambda i: False)
    for i in sorted(ancestors):
        own = support.own[i]
        if own is None or not support.visible(i) or own > support.bar + NEAR_DB:
            continue
        if own < support.level(i) - DROP_DB:
            _, folded = support.back(i, support.visible)
            return min((j for j in folded if not support.nodes[j].moves), default=i)
    return index


def _wrong_move(reference: Tap, artifact: Tap, support: Support, index: int) -> Fault | None:
    """A move before an operation that the artifact does otherwise: same shape, same numbers, other places."""
    for i in reference.nodes[index].inputs:
        node = reference.nodes[i]
        if not node.moves or node.fixed or support.db[i] >= support.bar:
            continue
        earlier = _wrong_move(reference, artifact, support, i)
        theirs = [j for j in range(len(artifact.nodes)) if _same_numbers(reference, i, artifact, j)]
        if earlier or theirs:
            return earlier or Fault(i, [i], support.level(i), support.own[i], theirs[0])
    return None


def _same_numbers(reference: Tap, ours: int, artifact: Tap, theirs: int) -> bool:
    """Whether two tensors of one shape hold the same numbers, in whatever order."""
    import numpy as np

    a, b = reference.moments(ours), artifact.moments(theirs)
    if not a or not b or reference.nodes[ours].shape != artifact.nodes[theirs].shape:
        return False
    pairs = list(zip(a, b, strict=True))
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-4 * float(np.sqrt(x[1]))) and x[2] < x[3] for x, y in pairs)


def _fault(reference: Tap, support: Support, index: int) -> Fault:
    """With those that share its operation: up to the first of a type that is seen where all is well, or to a join."""
    seen, consumers, nodes = _seen(support), reference.consumers(), reference.nodes
    group = [index]
    while not nodes[group[-1]].is_output and len(consumers[group[-1]]) == 1:
        after = consumers[group[-1]][0]
        # Where nothing was seen yet: every converter folds a batch norm into the convolution before it, and one that
        # computes a normalisation without its weights folds these into what follows.
        split = any(nodes[i].part and support.visible(i) for i in nodes[group[-1]].inputs)
        unknown = 0.0 if split or nodes[after].type.lower().startswith("batch") else 1.0
        joins = sum(not nodes[i].fixed for i in nodes[after].inputs) > 1
        if joins or seen.get(nodes[group[-1]].type, unknown) >= 0.5:
            break
        group.append(after)
    return Fault(index, group, support.level(index), support.own[group[-1]])


def artifact_op(ours: Support, theirs: Support, matches: Matches, fault: Fault, paths: Mapping[str, str]) -> str:
    """Name of the artifact's operation that holds a fault; empty where it can't be told.

    Args:
        ours: what of the reference was found.
        theirs: what of the artifact was found.
        matches: between the two.
        fault: what was located.
        paths: name of the artifact's operation → module path, where the converter kept it.
    """
    if fault.operation is not None:
        return theirs.nodes[fault.operation].op
    ends, _ = ours.back(fault.index, ours.visible)
    near = {j for i in ends for j, db in matches.best[i] if db >= theirs.bar}
    after = [i for i, node in enumerate(theirs.nodes) if not node.is_input and near & theirs.back(i, theirs.visible)[0]]
    modules = {ours.nodes[i].path for i in fault.group}
    named = [i for i in after if module_of(theirs.nodes[i].op, paths) in modules]
    first = theirs.first_wrong()
    wrong = [i for i in after if not theirs.ok[i] and not theirs.nodes[i].moves]
    for group in (
        [i for i in named if i in first],
        named,
        _alike(ours, theirs, fault, wrong, near),
        [i for i in wrong if i in first],
        wrong,
        first,
    ):
        if group:
            return theirs.nodes[group[0]].op
    return ""


def _alike(ours: Support, theirs: Support, fault: Fault, wrong: Sequence[int], near: set[int]) -> list[int]:
    """Of the wrong operations those that do what the culprit does: a product, or something element by element.

    Where nothing does the latter any more, a converter lost it: then the operation whose output lacks it.
    """
    if any(is_product(ours.nodes[i].type) for i in fault.group):
        return [i for i in wrong if is_product(theirs.nodes[i].type)]
    node = ours.nodes[fault.index]
    if len(node.inputs) != 1 or node.shape != ours.nodes[node.inputs[0]].shape:
        return []
    size = math.prod(node.shape)
    next_to = [i for i in wrong if len(theirs.nodes[i].inputs) == 1 and near & set(theirs.nodes[i].inputs)]
    same = [i for i in next_to if math.prod(theirs.nodes[i].shape) == size and not is_product(theirs.nodes[i].type)]
    return same or sorted(near)


def module_of(op: str, paths: Mapping[str, str]) -> str | None:
    """Module path of an operation; OpenVINO adds to ONNX's names after a slash."""
    return paths.get(op, paths.get(op.rpartition("/")[0]))
