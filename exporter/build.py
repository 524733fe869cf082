"""From a source to artifacts: each file is made once, in one folder, and found again there by a later run."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process, samples
from ..core.errors import ChildFailed, ConverterFailed, MissingPart, SeatrialError, Unsupported, UsageError, from_dict
from ..core.ids import files_id
from ..core.process import Limits
from ..devices import environments, lease
from ..devices.facts import cpu_flags
from ..targets import get
from . import quantize, tools
from .artifact import START, SUFFIXES, Artifact, model_files
from .convert import Step, routes
from .program import FILE, Program
from .quantize import Recipe, fp16
from .sources import TORCH, Source
from .sources.job import SKIPPED, Job

if TYPE_CHECKING:
    from .data import Data

Say = Callable[[str], None]
LOOKED = "seatrial.exporter.convert.look:convert"


class Builder:
    """Makes the Program of one source and its artifacts.

    Args:
        folder: takes everything; what is whole there already isn't made again.
        limits: of each converter's process.
        say: takes one line about each step as it starts.
        in_process: run the user's code in this process, for a debugger.
        create_env: make an environment that a step needs.
    """

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __init__(
        self,
        folder: Path,
        limits: Limits = Limits(),
        say: Say | None = None,
        in_process: bool = False,
        create_env: bool = False,
    ) -> None:
        self.folder, self.limits, self.in_process = folder, limits, in_process
        self.create_env = create_env
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
        _need(source)
        with lease.shared(purpose="capturing a model", progress=self.say):
            self.say(f"{'capturing' if source.kind in TORCH else 'reading'} {source.path.name}")
            self._capture(source, targets, folder, {use: str(path) for use, path in data.items()})
        program = Program.load(folder)
        if program.kind != source.formats[0]:
            self.close()  # converters that were started for what would have been another format
        return program

    def _capture(self, source: Source, targets: Sequence[str], folder: Path, data: dict[str, str]) -> None:
        log = self.folder / "log" / "capture"
        start = source.formats[0]
        begin = folder / START[start]
        first = _first_steps(start, targets)
        for step in first:
            if step.early and not step.missing():
                self._early[step.label] = self._start(step, begin, self.product([step]))
        inside = [step for step in first if step.in_capture and not step.missing()]
        then = [
            {
                "source": s.source,
                "function": s.function,
                "args": self._job(begin, self.product([s])),
                "label": s.label,
                "after": s.instead,
            }
            for s in inside
        ]
        job = Job(
            path=str(source.path),
            name=source.name,
            folder=str(folder),
            args=source.args,
            data=data,
            inputs=str(source.inputs) if source.inputs else None,
            shapes={name: list(shape) for name, shape in source.shapes.items()},
            ranges={name: list(limits) for name, limits in source.ranges.items()},
            free=list(source.free),
            fixed=list(source.fixed),
            function=source.function,
            layout=source.layout,
            embed=source.embed,
            detections=source.detections,
            then=then,
        )
        try:
            answer = self._read(source, job, log)
        except ChildFailed as error:
            if error.kind != "signal" or not (folder / FILE).exists():
                raise
            # A converter took the process with it; what the capture left is whole, and each converter gets its own.
            self.say(f"{error.found} after the capture, while converting: each conversion gets a process of its own")
            return
        for step, outcome in zip(inside, answer["steps"], strict=True):
            if outcome != SKIPPED:
                self._settle(step, self.product([step]), outcome, log / "log.txt", begin)

    def _read(self, source: Source, job: Job, log: Path) -> dict[str, Any]:
        if self.in_process:
            module, _, name = source.how.reader.partition(":")
            answer: dict[str, Any] = getattr(importlib.import_module(module), name)(job.to_dict())
            return answer
        args = {"job": job.to_dict()}
        label = f"the model {source.text}"
        return process.call(source.how.reader, args, workdir=log, limits=self.limits, label=label)

    def convert(self, program: Program, target: str, lost: Sequence[str] = ()) -> Artifact:
        """The fp32 artifact for a target, by the first route that works.

        Args:
            program: the source.
            target: name of the target.
            lost: routes that were tried before and whose artifact was wrong, each as ``ROUTE: reason``.

        Raises:
            Unsupported: a step of the only route is beyond its converter.
            MissingPart: no route whose parts are installed.
            ConverterFailed: all routes were tried and failed; the reasons are listed.
        """
        found = routes(program.kind, get(target).format)
        asked = f"{program.name} for {target}"
        lost = list(lost)
        errors: list[SeatrialError] = []
        for route in found:
            label = route_label(step.label for step in route)
            if any(text.startswith(f"{label}: ") for text in lost):
                continue
            try:
                path = self._follow(program, route)
            except SeatrialError as error:
                lost.append(f"{label}: {error.found}")
                errors.append(error)
                continue
            recipe = Recipe(program.precision)
            return Artifact(target, path, recipe, [s.label for s in route], lost, files_id(model_files(path)))
        if len(errors) == len(lost) == 1:
            raise errors[0]
        if not errors:
            raise Unsupported(asked, "no other route is left", "choose another --target")
        # What to do for the first route, which is the usual one.
        raise ConverterFailed(asked, "no route works: " + "; ".join(lost), errors[0].todo, errors[0].log)

    def _follow(self, program: Program, route: list[Step]) -> Path:
        path = program.folder / program.model
        for step in route:
            _check_free(program, step)
        for i, step in enumerate(route):
            if self.create_env and step.environment:
                environments.interpreter(step.environment, True, self.say)
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
                self._settle(step, out, error.to_dict(), running.child.log, source)
            else:
                self._settle(step, out, None, running.child.log, source)

    def _start(self, step: Step, source: Path, out: Path) -> process.Running:
        return process.start(
            LOOKED,
            {**self._job(source, out), "function": step.function, "label": step.label},
            workdir=self.folder / "log" / out.parent.name,
            limits=self.limits,
            label=f"the conversion {step.label}",
            python=environments.interpreter(step.environment) if step.environment else None,
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

    def _settle(self, step: Step, out: Path, error: dict[str, Any] | None, log: Path, source: Path) -> None:
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
        tools.write(part, step.needs, source, step.environment)
        part.rename(out.parent)

    def product(self, steps: Sequence[Step]) -> Path:
        """Main file that a chain of converters writes."""
        last = steps[-1].target
        folder = "_".join(step.key for step in steps)
        return self.folder / "converted" / folder / f"model{SUFFIXES.get(last, '.' + last)}"

    @staticmethod
    def _part(out: Path) -> Path:
        return out.parent.with_name(out.parent.name + ".part") / out.name

    def quantize(self, base: Artifact, flags: Sequence[str], calibration: Data) -> Artifact:
        """The int8 artifact of an fp32 one, by the target's own quantizer."""
        recipe = quantize.recipe(base.target, flags, calibration.id, len(calibration))
        feeds = self.folder / "calibration.npz"
        if not feeds.exists():
            samples.save(feeds, calibration.feeds)
        args = {"calibration": str(feeds), "options": recipe.options}
        out, answer = self._derived(base, "int8", quantize.function(base.target), args, quantize.needs(base.target))
        return Artifact(
            base.target, out, recipe.held(answer), [*base.route, "int8"], base.lost, files_id(model_files(out))
        )

    def halve(self, base: Artifact) -> Artifact:
        """The fp16 artifact of an fp32 one."""
        out, _ = self._derived(base, "fp16", fp16.maker(base.target), {}, quantize.needs(base.target))
        return Artifact(base.target, out, Recipe("fp16"), [*base.route, "fp16"], base.lost, files_id(model_files(out)))

    def _derived(
        self, base: Artifact, precision: str, function: str, args: Mapping[str, Any], needs: Sequence[str]
    ) -> tuple[Path, dict[str, Any]]:
        """What a function makes of an artifact, and its answer: made once, whole or not at all."""
        out = self.folder / "quantized" / f"{base.target}-{precision}" / base.path.name
        held = out.parent / quantize.HELD
        if held.exists():
            return out, json.loads(held.read_text())
        self.say(f"making {precision} for {base.target}")
        label = f"{precision} for {base.target}"
        part = self._part(out)
        shutil.rmtree(part.parent, ignore_errors=True)
        part.parent.mkdir(parents=True)
        with lease.shared(purpose=label, progress=self.say):
            answer = process.call(
                function,
                {"model": str(base.path), "out": str(part), **args},
                workdir=self.folder / "log" / f"{base.target}-{precision}",
                limits=self.limits,
                label=label,
            )
        if not part.exists():
            raise _wrote_nothing(label, out)
        (part.parent / quantize.HELD).write_text(json.dumps(answer))
        tools.write(part.parent, needs, base.path)
        shutil.rmtree(out.parent, ignore_errors=True)
        part.parent.rename(out.parent)
        return out, answer

    def derive(self, program: Program, base: Artifact, precision: str) -> Artifact:
        """The artifact of a precision, made from the one that the route gave."""
        if precision == program.precision:
            return base
        if precision == "int8":
            calibration = program.calibration()
            if calibration is None:
                raise UsageError("int8", "no calibration data given", "add --calibration")
            return self.quantize(base, cpu_flags(), calibration)
        if precision == "fp16":
            return self.halve(base)
        # bf16 is a precision of the runtime, not of the file.
        return replace(base, recipe=Recipe(precision))

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
    if free and step.fixed:
        raise cant_free(f"the conversion {step.label}", free[0])


def cant_free(asked: str, what: str) -> Unsupported:
    """The error of a converter that needs every size, with the way out."""
    todo = "make one bundle for each size: --bucket AXIS=SIZE,SIZE (as in --bucket ids.1=32,128); "
    todo += "or one, with --shape and without --dynamic"
    return Unsupported(asked, f"it can't keep the free dimension of {what}", todo)


def route_label(labels: Iterable[str]) -> str:
    """A chain of converters in words."""
    return ", ".join(labels) or "as it is"


def _first_steps(start: str, targets: Sequence[str]) -> list[Step]:
    """The converters that a program of this format goes to first, for these targets, with their stand-ins."""
    found: dict[str, Step] = {}
    for name in targets:
        for i, route in enumerate(routes(start, get(name).format)):
            if route and (i == 0 or route[0].instead in found):
                found[route[0].label] = route[0]
    return list(found.values())


def _need(source: Source) -> None:
    for name in source.how.needs:
        if find_spec(name) is None:
            todo = f'pip install "seatrial[{source.how.extra}]"'
            raise MissingPart(f"the model {source.text}", f"the module {name} is not installed", todo)
