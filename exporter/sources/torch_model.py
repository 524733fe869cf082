"""A torch module with its example inputs, captured into a Program. Runs in a torch process."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import Unsupported, UsageError
from ...core.ids import by_content, content_id
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ..data import Data
from ..images import Preprocess
from ..program import Program
from ..proof import parity
from . import common, then, user
from .boundary import Boundary
from .job import SKIPPED, Job
from .torch_args import flat, flattened, named
from .torch_export import DataDependent, export, free_outputs

REFERENCE = "torch eager, fp32, one thread"

_captured: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {}


@dataclass
class Given:
    """What a source of the torch family gives.

    Attributes:
        model: a ``torch.nn.Module`` in eval mode.
        args: example inputs: a tensor, a sequence of tensors, or a dict by parameter name; nested dicts and tuples
            of tensors inside count as inputs of their own.
        id_parts: what the source's id is made of, besides the weights.
        labels: class names, of a declared classifier.
        preprocess: how pictures become inputs.
        ranges: low and high (exclusive) of integer inputs, where the source knows them.
        calibration: samples of the source's own, for int8.
        attached: files that travel with the bundle, such as a tokenizer's.
        licence: of the weights, as the source states it.
        tools: versions of what took part, besides torch.
    """

    model: Any
    args: Any
    id_parts: list[Any]
    labels: list[str] | None = None
    preprocess: Preprocess | None = None
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    calibration: Any = None
    attached: list[str] = field(default_factory=list)
    licence: str | None = None
    tools: dict[str, str] = field(default_factory=dict)


def prepare() -> None:
    """What every torch process does first: one seed, and one thread (30 runs took 16 s with two, 1.7 with one)."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


def captured(pt2: str) -> Any:
    """The exported program behind a ``.pt2``; the very object, where this process captured it."""
    import torch

    return _captured[pt2][0] if pt2 in _captured else torch.export.load(pt2)


def original(pt2: str) -> tuple[Any, tuple[Any, ...]]:
    """The flat module that this process captured, with its example tensors.

    Raises:
        Unsupported: another process captured it: a ``.pt2`` doesn't hold the module itself.
    """
    if pt2 not in _captured:
        found = "it needs the module itself, which only the process that captured it has"
        raise Unsupported("torch's older exporter", found, "name onnxruntime among the targets: it runs in the capture")
    return _captured[pt2][1:]


def capture(job: Job, given: Given) -> dict[str, Any]:
    """Capture a module into the Program of `job`, then run converters of the torch family in this process.

    Where torch.export can't capture it, torch's older exporter traces it into an ONNX file, and routes start there.

    Returns:
        ``{"steps": [...]}``: for each converter None, or its error as data.

    Raises:
        UsageError: the model or its example breaks the contract (train mode, random outputs, no tensors).
        Unsupported: neither exporter can capture it, or a branch depends on data.
    """
    import torch

    _check_model(job, given.model)
    args, structure = flattened(job, given.args)
    names, tensors = named(job, given.model, args)
    wrapper = flat(given.model, structure)
    with torch.no_grad():
        edge = Boundary.make(job, given.preprocess, tensors)
        plain = wrapper
        wrapper, tensors = edge.wrap(plain), edge.tensors(tensors)
        specs = _specs(job, given, names, tensors)
        example = common.fitted({n: t.detach().numpy() for n, t in zip(names, tensors, strict=True)}, specs, job)
        tensors = tuple(torch.from_numpy(example[name].copy()) for name in names)
        _check_fit(job, wrapper, names, tensors)

        def run(feed: Feed) -> Feed:
            return _run(plain, plain.output_names, names, feed)

        own = {"calibration": _own_data(job, given, edge, specs)} if given.calibration is not None else {}
        answers = common.fill(job, edge.around(run), specs, example, edge.preprocess, own, given.labels)
        answers = replace(answers, notes=[*edge.notes, *answers.notes])
        start = _Start(job, given, wrapper, specs, example, answers, edge.preprocess)
        try:
            exported = export(job, wrapper, specs, example)
        except DataDependent as refused:
            raise refused.error from refused
        except Unsupported as error:
            return _traced(start, error)
        return _store(start, exported)


@dataclass(frozen=True)
class _Start:
    """Everything that both ways to a Program have in common."""

    job: Job
    given: Given
    wrapper: Any
    specs: list[TensorSpec]
    example: Feed
    answers: common.Answers
    preprocess: Preprocess | None

    def program(
        self, kind: str, model: str, outputs: list[TensorSpec], notes: Sequence[str] = (), **more: Any
    ) -> Program:
        import torch

        job, given, answers = self.job, self.given, self.answers
        return Program(
            folder=Path(job.folder),
            name=job.name,
            kind=kind,
            model=model,
            source_id=_source_id(given, job),
            reference=REFERENCE,
            inputs=self.specs,
            outputs=outputs,
            main=answers.main,
            edges=answers.edges,
            notes=[*notes, *answers.notes],
            data=answers.data,
            labels=given.labels,
            preprocess=self.preprocess,
            sizes=job.limits,
            detections=dict(job.detections),
            attached=given.attached,
            licence=given.licence,
            tools={"torch": torch.__version__, **given.tools},
            **more,
        )


def _store(start: _Start, exported: Any) -> dict[str, Any]:
    import torch

    job, wrapper, folder = start.job, start.wrapper, Path(start.job.folder)
    names = [spec.name for spec in start.specs]
    feeds, reference = (samples.load(folder / f"main_{side}.npz") for side in ("in", "out"))
    found = [_run(exported.module(), wrapper.output_names, names, feed) for feed in feeds]
    check = parity.compare("fp32", start.answers.main, reference, found, declared=job.detections)
    pt2 = folder / "model.pt2"
    torch.export.save(exported, str(pt2))
    tensors = tuple(torch.from_numpy(start.example[name].copy()) for name in names)
    _captured[str(pt2)] = exported, wrapper, tensors
    outputs = free_outputs(start.answers.outputs, exported, start.specs)
    start.program("torch", "model.pt2", outputs, capture_db=check.sqnr_db, capture_problems=check.problems).save()
    return {"steps": then.run(job, "torch")}


def _traced(start: _Start, error: Unsupported) -> dict[str, Any]:
    """The way without torch.export: an ONNX file by torch's older exporter becomes the Program."""
    from ..convert.torch_onnx_older import trace
    from ..onnx_text import store

    names = [spec.name for spec in start.specs]
    import torch

    tensors = tuple(torch.from_numpy(start.example[name].copy()) for name in names)
    try:
        model = trace(start.wrapper, tensors, start.specs, start.answers.outputs)
    except Exception as second:
        traceback.print_exc()
        first = str(second).strip().splitlines()
        found = (
            f"{error.found}\n         and torch's older exporter: {type(second).__name__}: {first[0] if first else ''}"
        )
        raise Unsupported(error.asked, found, error.todo) from second
    store(model, Path(start.job.folder) / "model.onnx")
    note = f"torch.export can't capture it, so torch's older exporter traced it ({error.found.partition(chr(10))[0]})"
    start.program("onnx", "model.onnx", start.answers.outputs, notes=[note]).save()
    return {"steps": [SKIPPED for _ in start.job.then]}


def _check_model(job: Job, model: Any) -> None:
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        found = f"{training[0]} is in train mode" + (f" (and {len(training) - 1} more)" * (len(training) > 1))
        raise UsageError(job.asked, found, "call model.eval() in get_model()")


def _specs(job: Job, given: Given, names: Sequence[str], tensors: Sequence[Any]) -> list[TensorSpec]:
    specs = [TensorSpec(n, _dtype(t), tuple(t.shape)) for n, t in zip(names, tensors, strict=True)]
    specs = common.ranged(specs, given.ranges)
    return common.shaped(common.ranged(specs, job.ranges, job.asked), job)


def _own_data(job: Job, given: Given, edge: Boundary, specs: Sequence[TensorSpec]) -> Data:
    """The samples that ``get_calibration()`` gives, as data."""
    import torch

    names = [spec.name for spec in specs]
    feeds: list[Feed] = []
    for sample in given.calibration:
        leaves, _ = flattened(job, sample)
        if len(leaves) != len(names):
            found = f"a sample has {len(leaves)} tensors, the model takes {len(names)}"
            raise UsageError(f"get_calibration() of {job.path}", found, f"yield what get_args() returns: {names}")
        values = edge.tensors([torch.as_tensor(value).detach() for _, value in leaves])
        feeds.append({name: value.numpy() for name, value in zip(names, values, strict=True)})
    if not feeds:
        raise UsageError(f"get_calibration() of {job.path}", "it gives no samples", "yield real inputs")
    return common.own_calibration(feeds)


def _check_fit(job: Job, wrapper: Any, names: Sequence[str], tensors: Sequence[Any]) -> None:
    import torch

    try:
        outputs = wrapper(*tensors)
    except Exception as error:
        shapes = ", ".join(f"{_dtype(t)}{list(t.shape)}" for t in tensors)
        raise user.user_error(job.path, f"the model can't take what get_args() gives ({shapes})", error) from error
    # An output may be called as an input is; a graph has one name for each.
    inner = wrapper.output_names
    inner[:] = [f"output_{name}" if name in names else name for name in inner]
    wrong = [n for n, v in zip(wrapper.output_names, outputs, strict=True) if not isinstance(v, torch.Tensor)]
    if wrong or not outputs:
        found = f"output {wrong[0]} is not a tensor" if wrong else "it returns nothing"
        raise UsageError(job.asked, found, "return tensors: one, a tuple or a dict of them")


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _run(function: Any, outputs: Sequence[str], names: Sequence[str], feed: Feed) -> Feed:
    import torch

    answers = function(*(torch.from_numpy(feed[name].copy()) for name in names))
    return {n: v.detach().numpy().copy() for n, v in zip(outputs, answers, strict=True)}


def _source_id(given: Given, job: Job) -> str:
    """From the source's own parts (a file counts by its bytes), what was asked of its inputs, and the weights."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(given.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content_id([given.id_parts, by_content(job.args), job.sizes, job.layout, job.embed, digest.hexdigest()])
