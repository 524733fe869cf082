"""The tensors of a captured torch program, node by node, under the user's module paths. Runs in a torch process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ....core import samples
from .record import Node, Recorder

if TYPE_CHECKING:
    from ....core.samples import Feed

MOVES = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "t", "contiguous",
    "clone", "expand", "expand_as", "select", "slice", "split", "split_with_sizes", "chunk", "unbind", "getitem", "cat",
    "stack", "alias", "detach", "to", "_to_copy", "dropout", "unfold", "narrow", "repeat", "movedim", "swapaxes",
    "view_as", "reshape_as", "_unsafe_view", "pixel_shuffle", "pixel_unshuffle", "roll", "flip",
}  # fmt: skip
"""ATen operations that move numbers about and change none."""

NORMS = {"layer_norm": 2, "group_norm": 2, "rms_norm": 1}
"""Normalisations, with how many weights they end with (after input and shape): converters fold these into what follows,
so what comes before them is kept too."""


def tap(model: str, inputs: str, out: str, names: list[str], layouts: bool = False) -> dict[str, Any]:
    """Run a ``.pt2`` on the samples of a file and keep every tensor; `names` are its inputs, in order."""
    import torch

    torch.set_num_threads(1)
    graph = torch.export.load(model).module()
    nodes, index = _nodes(graph)
    recorder = Recorder(nodes, layouts)

    class Listening(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            if n in index and nodes[index[n] - 1].part:
                given, options = self.fetch_args_kwargs_from_env(n)
                recorder.add(index[n] - 1, _numbers(n.target(*_unweighted(n, given), **options)))
            value = super().run_node(n)
            # At once, because a later operation may write into the same memory.
            if n in index and isinstance(value, torch.Tensor):
                recorder.add(index[n], _numbers(value))
            return value

    def run(feed: Feed) -> None:
        recorder.sample()
        Listening(graph).run(*(torch.from_numpy(feed[name].copy()) for name in names))

    with torch.no_grad():
        for feed in samples.load(inputs):
            run(feed)
    return recorder.save(out)


def _numbers(value: Any) -> Any:
    import torch

    small = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)
    return (value.float() if small else value).detach().cpu().numpy()


def _nodes(graph: Any) -> tuple[list[Node], dict[Any, int]]:
    """The graph's operations, weights left out, and each one's place among them."""
    prefix = _prefix(graph)
    nodes: list[Node] = []
    index: dict[Any, int] = {}
    for n in graph.graph.nodes:
        if n.op == "output":
            for inner in n.all_input_nodes:
                if inner in index:
                    nodes[index[inner]].is_output = True
        elif n.op in ("placeholder", "call_function"):
            path = _path(n, prefix)
            kind, stack = _operation(n), _stack(n)
            owner = stack[-1][1].rpartition(".")[2] if stack else ""
            inputs = [index[other] for other in n.all_input_nodes if other in index]
            if any(weight is not None for weight in n.args[2 : 2 + NORMS.get(kind, 0)]):
                nodes.append(
                    Node(f"{n.name} without weights", path, f"{kind} without weights", owner, inputs, part=True)
                )
                inputs = [len(nodes) - 1]
            index[n] = len(nodes)
            nodes.append(Node(n.name, path, kind, owner, inputs, moves=kind in MOVES, is_input=kind == "input"))
    return nodes, index


def _unweighted(n: Any, given: Sequence[Any]) -> list[Any]:
    """A normalisation's arguments without its weights."""
    end = 2 + NORMS[_operation(n)]
    return [None if 2 <= i < end else value for i, value in enumerate(given)]


def _operation(n: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``, ``hardtanh`` of the one that works in place."""
    if n.op == "placeholder":
        return "input"
    packet = getattr(n.target, "overloadpacket", n.target)
    name = str(packet.__name__).rpartition(".")[2]
    return name if name.startswith("_") else name.removesuffix("_")


def _stack(n: Any) -> list[tuple[str, str]]:
    """Path and type of every module that an operation stands in, from the outermost on."""
    return [(str(path), str(kind)) for path, kind in (n.meta.get("nn_module_stack") or {}).values()]


def _prefix(graph: Any) -> str:
    """Path of the user's model under our wrappers."""
    for n in graph.graph.nodes:
        stack = _stack(n)
        for path, kind in stack:
            if not kind.startswith("seatrial."):
                return path
    targets = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
    # A program that was captured before tells its modules by its weights alone.
    return next((p for p in ("model.inner", "model") if any(t.startswith(f"{p}.") for t in targets)), "")


def _path(n: Any, prefix: str) -> str:
    stack = _stack(n)
    path = _inside(stack[-1][0], prefix) if stack else ""
    owners = [_inside(str(o.target).rpartition(".")[0], prefix) for o in n.all_input_nodes if o.op == "get_attr"]
    deeper = [owner for owner in owners if owner.startswith(f"{path}." if path else "")]
    return max(deeper, key=len, default=path) or path


def _inside(path: str, prefix: str) -> str:
    return path[len(prefix) :].lstrip(".") if path == prefix or path.startswith(f"{prefix}.") or not prefix else ""
