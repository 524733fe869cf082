"""From a source to artifacts: each file is made once, in one folder, and found again there by a later run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process, samples
from ..core.errors import ConverterFailed, MissingPart, SeatrialError, Unsupported, UsageError, from_dict
from ..core.ids import files_id
from ..core.process import Limits
from ..devices import lease
from ..devices.facts import cpu_flags
from ..targets import get
from . import quantize
from .convert import Step, routes
from .program import FILE, Program
from .quantize import Recipe
from .sources import Source

if TYPE_CHECKING:
    from .data import Data

Say = Callable[[str], None]
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "tflite": ".tflite"}


@dataclass(frozen=True)
class Artifact:
    """The files that a runtime loads.

    Attributes:
        target: name of the target.
        path: main file; the files beside it in its folder belong to it.
        recipe: how it was made.
        route: the converters that made it (``torch → onnx``).
        lost: routes that were tried before, each with its reason.
        id: content id of its files.
    """

    target: str
    path: Path
    recipe: Recipe
    route: list[str]
    lost: list[str]
    id: str

    @property
    def precision(self) -> str:
        """Precision of the recipe."""
        return self.recipe.precision

    @property
    def files(self) -> list[Path]:
        """All files that the runtime loads."""
        return model_files(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.stat().st_size for file in self.files)


def model_files(main: Path) -> list[Path]:
    """A model's main file with what belongs to it: IR weights, ONNX external data."""
    return sorted(p for p in main.parent.glob(f"{main.stem}.*") if p.suffix not in (".part", ".pt2"))


class Builder:
    """Makes the Program of one source and its artifacts.

    Args:
        folder: takes everything; what is whole there already isn't made again.
        limits: of each converter's process.
        say: takes one line about each step as it starts.
    """

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __init__(self, folder: Path, limits: Limits = Limits(), say: Say | None = None) -> None:
        self.folder, self.limits = folder, limits
        self.say = say or (lambda text: None)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._early: dict[str, process.Running] = {}
        # What failed in an earlier run may have lacked time or memory: it is tried again.
        for failed in self.folder.glob("converted/*/error.json"):
            shutil.rmtree(failed.parent)

    def close(self) -> None:
        """End converters that were started and are no longer needed."""
        for running in self._early.values():
            running.cancel()
        self._early = {}

    def capture(self, source: Source, targets: Sequence[str] = (), data: Mapping[str, Path] = {}) -> Program:
        """The Program of a source.

        Args:
            source: what the user has.
            targets: what it will be converted for: torch's own converters run in the process that captures.
            data: paths of the user's data by use: ``calibration``, ``evaluate``, ``confirm``.
        """
        folder = self.folder / "program"
        if (folder / FILE).exists():
            return Program.load(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        paths = {use: str(path) for use, path in data.items()}
        with lease.shared(purpose="capturing a model", progress=self.say):
            if source.kind == "torch":
                return self._capture_torch(source, targets, folder, paths)
            return self._capture_onnx(source, folder, paths)

    def _capture_torch(self, source: Source, targets: Sequence[str], folder: Path, data: dict[str, str]) -> Program:
        first = {r[0].label: r[0] for name in targets for r in routes("torch", get(name).format)[:1] if r}
        _need(source, ["torch"], "torch")
        pt2 = folder / "model.pt2"
        inside = [step for step in first.values() if step.in_capture and not step.missing()]
        self.say(f"capturing {source.path.name}")
        for step in first.values():
            if step.early and not step.missing():
                self._early[step.label] = self._start(step, pt2, self.product([step]))
        log = self.folder / "log" / "capture"
        then = [
            {"function": s.function, "args": self._job(pt2, self.product([s])), "label": f"the conversion {s.label}"}
            for s in inside
        ]
        args = {
            "path": str(source.path),
            "name": source.name,
            "args": dict(source.args),
            "folder": str(folder),
            "data": data,
            "then": then,
        }
        answer = process.call(
            "seatrial.exporter.sources.torch_file:capture",
            args,
            workdir=log,
            limits=self.limits,
            label=f"the model {source.path}",
        )
        for step, outcome in zip(inside, answer["steps"], strict=True):
            self._settle(step, self.product([step]), outcome, log / "log.txt")
        return Program.load(folder)

    def _capture_onnx(self, source: Source, folder: Path, data: dict[str, str]) -> Program:
        _need(source, ["onnx", "onnxruntime"], "onnxruntime")
        self.say(f"reading {source.path.name}")
        args = {
            "path": str(source.path),
            "name": source.name,
            "folder": str(folder),
            "data": data,
            "inputs": str(source.inputs) if source.inputs else None,
            "shapes": {k: list(v) for k, v in source.shapes.items()},
            "ranges": {k: list(v) for k, v in source.ranges.items()},
        }
        process.call(
            "seatrial.exporter.sources.onnx_file:capture",
            args,
            workdir=self.folder / "log" / "capture",
            limits=self.limits,
            label=f"the model {source.path}",
        )
        return Program.load(folder)

    def convert(self, program: Program, target: str) -> Artifact:
        """The fp32 artifact for a target, by the first route that works.

        Raises:
            Unsupported: a step of the only route is beyond its converter.
            MissingPart: no route whose parts are installed.
            ConverterFailed: all routes were tried and failed; the reasons are listed.
        """
        found = routes(program.kind, get(target).format)
        asked = f"{program.name} for {target}"
        lost: list[str] = []
        errors: list[SeatrialError] = []
        for route in found:
            label = ", ".join(step.label for step in route) or "as it is"
            try:
                path = self._follow(program, route)
            except SeatrialError as error:
                lost.append(f"{label}: {error.found}")
                errors.append(error)
                continue
            return Artifact(target, path, Recipe("fp32"), [s.label for s in route], lost, files_id(model_files(path)))
        if len(errors) == 1:
            raise errors[0]
        todo = errors[-1].todo
        raise ConverterFailed(asked, "no route works: " + "; ".join(lost), todo, errors[-1].log)

    def _follow(self, program: Program, route: list[Step]) -> Path:
        path = program.folder / program.model
        for i, step in enumerate(route):
            _check_free(program, step)
            step.need()
            out = self.product(route[: i + 1])
            failed = out.parent / "error.json"
            if not out.exists() and not failed.exists():
                self._convert(step, path, out)
            if failed.exists():
                raise from_dict(json.loads(failed.read_text()))
            path = out
        return path

    def _convert(self, step: Step, source: Path, out: Path) -> None:
        """Leave the product, or the error, where `_settle` puts them."""
        self.say(f"converting {step.label}")
        with lease.shared(purpose="a conversion", progress=self.say):
            running = self._early.pop(step.label, None) or self._start(step, source, out)
            try:
                running.result()
            except SeatrialError as error:
                self._settle(step, out, error.to_dict(), running.child.log)
            else:
                self._settle(step, out, None, running.child.log)

    def _start(self, step: Step, source: Path, out: Path) -> process.Running:
        return process.start(
            step.function,
            self._job(source, out),
            workdir=self.folder / "log" / out.parent.name,
            limits=self.limits,
            label=f"the conversion {step.label}",
        )

    def _job(self, source: Path, out: Path) -> dict[str, str]:
        """A converter's arguments; it fills a folder that `_settle` moves into place."""
        shutil.rmtree(self._part(out).parent, ignore_errors=True)
        self._part(out).parent.mkdir(parents=True)
        return {
            "source": str(source),
            "out": str(self._part(out)),
            "program": str(self.folder / "program" / FILE),
        }

    def _settle(self, step: Step, out: Path, error: dict[str, Any] | None, log: Path) -> None:
        """Let a converter's folder appear whole, or leave its error there."""
        part = self._part(out).parent
        shutil.rmtree(out.parent, ignore_errors=True)
        if error is None and not self._part(out).exists():
            error = _wrote_nothing(f"the conversion {step.label}", out).to_dict()
        if error is not None:
            error["log"] = error["log"] or str(log)
            shutil.rmtree(part, ignore_errors=True)
            out.parent.mkdir(parents=True)
            (out.parent / "error.json").write_text(json.dumps(error))
            return
        part.rename(out.parent)

    def product(self, steps: Sequence[Step]) -> Path:
        """Main file that a chain of converters writes."""
        formats = [steps[0].source, *(step.target for step in steps)]
        return self.folder / "converted" / "-".join(formats) / f"model{SUFFIXES.get(formats[-1], '.' + formats[-1])}"

    @staticmethod
    def _part(out: Path) -> Path:
        return out.parent.with_name(out.parent.name + ".part") / out.name

    def quantize(self, base: Artifact, flags: Sequence[str], calibration: Data) -> Artifact:
        """The int8 artifact of an fp32 one, by the target's own quantizer."""
        recipe = quantize.recipe(base.target, flags, calibration.id, len(calibration))
        out = self.folder / "quantized" / f"{base.target}-int8" / base.path.name
        if not out.exists():
            self.say(f"quantizing for {base.target}")
            self._quantize(base, recipe, calibration, out)
        return Artifact(base.target, out, recipe, [*base.route, "int8"], base.lost, files_id(model_files(out)))

    def _quantize(self, base: Artifact, recipe: Recipe, calibration: Data, out: Path) -> None:
        part = self._part(out)
        shutil.rmtree(part.parent, ignore_errors=True)
        part.parent.mkdir(parents=True)
        feeds = self.folder / "calibration.npz"
        if not feeds.exists():
            samples.save(feeds, calibration.feeds)
        args = {
            "model": str(base.path),
            "calibration": str(feeds),
            "out": str(part),
            "options": recipe.options,
        }
        with lease.shared(purpose="a quantization", progress=self.say):
            process.call(
                quantize.function(base.target),
                args,
                workdir=self.folder / "log" / f"{base.target}-int8",
                limits=self.limits,
                label=f"the quantization for {base.target}",
            )
        if not part.exists():
            raise _wrote_nothing(f"the quantization for {base.target}", out)
        shutil.rmtree(out.parent, ignore_errors=True)
        part.parent.rename(out.parent)

    def derive(self, program: Program, base: Artifact, precision: str) -> Artifact:
        """The artifact of another precision, made from the fp32 one."""
        if precision == "int8":
            calibration = program.calibration()
            if calibration is None:
                raise UsageError("int8", "no calibration data given", "add --calibration")
            return self.quantize(base, cpu_flags(), calibration)
        # bf16 is a precision of the runtime, not of the file.
        return base if precision == "fp32" else replace(base, recipe=Recipe(precision))

    def steps(self, program: Program, base: Artifact) -> list[tuple[str, Path]]:
        """Label and product of each converter on an fp32 artifact's route."""
        for route in routes(program.kind, get(base.target).format):
            if [step.label for step in route] == base.route:
                return [(step.label, self.product(route[: i + 1])) for i, step in enumerate(route)]
        return []


def _wrote_nothing(asked: str, out: Path) -> ConverterFailed:
    return ConverterFailed(asked, f"it ended without an error and wrote no {out.name}", "its log may tell why")


def _check_free(program: Program, step: Step) -> None:
    """What a step is known not to do, before minutes are spent."""
    free = [str(spec) for spec in program.inputs if spec.is_free]
    if free and step.target == "tflite":
        todo = "fix the size before exporting"
        raise Unsupported(f"the conversion {step.label}", f"it can't keep the free dimension of {free[0]}", todo)


def _need(source: Source, modules: Sequence[str], extra: str) -> None:
    from importlib.util import find_spec

    for name in modules:
        if find_spec(name) is None:
            todo = f'pip install "seatrial[{extra}]"'
            raise MissingPart(f"the model {source.path}", f"the module {name} is not installed", todo)
