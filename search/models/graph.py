"""Runs in a child: what a built graph is, whatever values it was built from: its key, its work, its parameters."""

from __future__ import annotations

from typing import Any

from ...core.ids import content_id
from ...exporter.sources.torch_args import flat


def facts(model: Any, args: Any) -> dict[str, Any]:
    """Key, multiplications with an addition, parameters and weights of a module in eval mode.

    The key is of the operators that run, in their order, with what flows between them: shapes, types, constants. Names
    of modules and weights' values don't count, so two ways of writing the same network are one.

    Args:
        model: the module.
        args: example inputs; they are run through it once.

    Returns:
        ``key``, ``macs`` (of convolutions and matrix products), ``parameters``, ``weights`` (those of matrices and
        kernels: converters fold others into them).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    recorder = _recorder()
    run, leaves = _flat(model, args)
    with torch.no_grad(), counter, recorder:
        outputs = run(*leaves)
    told = [recorder.described(leaves), recorder.lines, recorder.described(outputs)]
    parameters = sum(p.numel() for p in model.parameters())
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    macs = counter.get_total_flops() // 2
    return {"key": content_id(told), "macs": macs, "parameters": parameters, "weights": weights}


def _flat(model: Any, args: Any) -> tuple[Any, list[Any]]:
    """The module as a function of the tensors in its arguments, and these."""
    import torch
    from torch.utils import _pytree

    args = (args,) if isinstance(args, torch.Tensor) else args
    leaves, structure = _pytree.tree_flatten(dict(args) if isinstance(args, dict) else tuple(args))
    return flat(model, structure), leaves


def classes(model: Any, args: Any) -> int | None:
    """How many classes a module tells apart, whose only output is (n, classes); of others None."""
    import torch
    from torch.utils import _pytree

    run, leaves = _flat(model.eval(), args)
    with torch.no_grad():
        found = _pytree.tree_leaves(run(*leaves))
    return int(found[0].shape[-1]) if len(found) == 1 and found[0].dim() == 2 else None


def _recorder() -> Any:
    import torch
    from torch.utils import _pytree
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):
        """Writes down each operator with its operands; a tensor is the number of its first appearance."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[Any] = []
            self.seen: dict[int, tuple[int, Any]] = {}  # with the tensor itself: an id is used again once it is gone

        def described(self, data: Any) -> list[Any]:
            return [self.one(x) for x in _pytree.tree_leaves(data)]

        def one(self, x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return str(x)
            number, _ = self.seen.setdefault(id(x), (len(self.seen), x))
            return [number, list(x.shape), str(x.dtype)]

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            taken = [self.described(args), sorted(kwargs), self.described([kwargs[k] for k in sorted(kwargs)])]
            found = function(*args, **kwargs)
            self.lines.append([str(function), *taken, self.described(found)])
            return found

    return Recorder()


def waken(model: Any) -> None:
    """Give an untrained model weights that no converter can fold away: some builders set last norms to zero.

    Latency doesn't depend on weights, unless whole branches are zero.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith(("bias", "running_mean")) and not tensor.any():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
