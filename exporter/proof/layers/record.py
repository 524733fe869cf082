"""What a tap writes and the matching reads: the tensors of a graph, thinned, with who consumes whom.

A network's activations are too many to keep whole (a detector's fill gigabytes), so at most `ENTRIES` numbers of each
tensor are kept, at places drawn by its element count alone: two tensors of one size are thinned alike, in whichever
process, and a picture's places fall on all channels. Beside them stand moments of the whole tensor, which no
reordering changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core import samples

if TYPE_CHECKING:
    from numpy import ndarray

    from ....core.samples import Feed

ENTRIES = 1 << 15
"""Numbers kept of one tensor."""

HUGE = 1e30
"""From here up a number stands for infinity, as masks of attention use it."""

LAST, FIRST, SWAP = "last", "first", "swap"
LAYOUTS: dict[int, dict[str, tuple[int, ...]]] = {
    4: {LAST: (0, 2, 3, 1), FIRST: (0, 3, 1, 2)},
    3: {SWAP: (0, 2, 1)},
}
"""Layouts that a converter may have moved a tensor of so many axes into, by name: channels last, channels first."""


@dataclass
class Node:
    """One operation of a graph with its tensor, in the order of execution.

    Attributes:
        name: the tensor's, unique in its graph.
        path: path of the module that it belongs to, or the node's own name.
        type: kind of the operation.
        owner: class of the module or layer, where there is one.
        inputs: indices of the nodes that it consumes.
        moves: whether it only moves numbers about (reshape, transpose, slice).
        fixed: whether it doesn't depend on the graph's inputs.
        is_input: whether it is one of the graph's inputs.
        is_output: whether it is one of the graph's outputs.
        part: whether it is only a part of the user's operation, as converters may split it.
        op: name of the operation inside the artifact; the reference leaves it empty.
        shape: of the first sample's tensor; empty where nothing was recorded.
    """

    name: str
    path: str
    type: str
    owner: str = ""
    inputs: list[int] = field(default_factory=list)
    moves: bool = False
    fixed: bool = False
    is_input: bool = False
    is_output: bool = False
    part: bool = False
    op: str = ""
    shape: list[int] = field(default_factory=list)


class Recorder:
    """Takes a graph's nodes, then the tensors of one sample after the other; `save` ends it.

    Args:
        nodes: in the order of execution.
        layouts: whether tensors are kept in every layout too; one of two sides does.
    """

    def __init__(self, nodes: Sequence[Node], layouts: bool) -> None:
        self.nodes, self.layouts = list(nodes), layouts
        self._feeds: list[Feed] = []

    def sample(self) -> None:
        """The next sample begins."""
        self._feeds.append({})

    def add(self, index: int, array: ndarray) -> None:
        """The tensor of a node; what holds no numbers is left out."""
        import numpy as np

        if array.dtype.kind not in "fiub" or array.size == 0:
            return
        plain = np.asarray(array, np.float32 if array.dtype.kind == "f" and array.itemsize < 8 else np.float64)
        if len(self._feeds) == 1:
            self.nodes[index].shape = [int(axis) for axis in array.shape]
        feed = self._feeds[-1]
        feed[str(index)] = _thin(plain)
        feed[f"{index}:moments"] = _moments(plain)
        if self.layouts:
            for name, order in LAYOUTS.get(plain.ndim, {}).items():
                feed[f"{index}:{name}"] = _thin(plain.transpose(order))

    def save(self, file: str) -> dict[str, Any]:
        """Write the tensors and give the graph as JSON data."""
        samples.save(file, self._feeds)
        _settle_fixed(self.nodes)
        return {"nodes": [asdict(node) for node in self.nodes], "samples": len(self._feeds)}


@dataclass(frozen=True)
class Tap:
    """A recorded graph: `tensors[i]` holds, for each sample, what `Recorder` kept of node i's tensor."""

    nodes: list[Node]
    feeds: list[Feed]

    @classmethod
    def load(cls, data: dict[str, Any], file: Path) -> Tap:
        """From a child's answer and the file that it wrote."""
        return cls([Node(**node) for node in data["nodes"]], samples.load(file))

    def tensor(self, index: int, layout: str = "") -> list[ndarray]:
        """The thinned tensor of a node for each sample; empty where not every sample has it."""
        key = f"{index}:{layout}" if layout else str(index)
        return [feed[key] for feed in self.feeds] if all(key in feed for feed in self.feeds) else []

    def moments(self, index: int) -> list[ndarray]:
        """Sum, mean square, lowest and highest number of a node's whole tensor, for each sample."""
        return self.tensor(index, "moments")

    def consumers(self) -> list[list[int]]:
        """For each node those that consume it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for other in set(node.inputs):
                found[other].append(i)
        return found


def _settle_fixed(nodes: Sequence[Node]) -> None:
    """Mark what hangs on no input: converters compute that in advance."""
    for node in nodes:
        node.fixed = not node.is_input and all(nodes[i].fixed for i in node.inputs)


def _thin(array: ndarray) -> ndarray:
    kept: ndarray = array.reshape(-1)[_places(array.size)]
    return kept


@cache
def _places(size: int) -> ndarray:
    import numpy as np

    rng = np.random.default_rng(size)
    return rng.permutation(size) if size <= ENTRIES else rng.integers(0, size, ENTRIES)


def _moments(array: ndarray) -> ndarray:
    import numpy as np

    flat = np.where(np.isfinite(array) & (np.abs(array) < HUGE), array, 0).astype(np.float64)
    return np.array([flat.sum(), (flat**2).mean(), flat.min(), flat.max(), flat.size])
