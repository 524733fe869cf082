"""Environments: runtimes and converters that can't live beside the others, each in an interpreter of its own.

Here is what they are and whether they are ready, which the targets must know; `devices.environments` makes them.
All of them can run `core`, `targets` and `devices.worker`, so none may ask for a Python older than ours.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import MissingPart, UsageError
from .ids import content_id
from .paths import cache_dir

READY = "ready.json"
START_S = 60.0


@dataclass(frozen=True)
class Environment:
    """What an environment holds.

    Attributes:
        name: as one types it.
        what: what it is for.
        pythons: versions that its wheels exist for, the tested one first.
        pins: every package in it, all of them exact: nothing is resolved.
        modules: imported once, when it is made.
        download_mb: of all its wheels, measured.
        disk_mb: once it is made, measured.
        seconds: to make it, measured on two busy cores.
        untested: what nobody has tried here, in words.
    """

    name: str
    what: str
    pythons: tuple[str, ...]
    pins: tuple[str, ...]
    modules: tuple[str, ...]
    download_mb: int
    disk_mb: int
    seconds: int
    untested: str = ""

    @property
    def folder(self) -> Path:
        """Where it lies, whether or not it is there: other pins, another folder."""
        return home() / f"{self.name}-{content_id([self.name, list(self.pins)])[:8]}"

    @property
    def command(self) -> str:
        """What to type for it."""
        return f"seatrial env create {self.name}"

    @property
    def cost(self) -> str:
        """What it takes, in words."""
        return f"{self.download_mb} MB to download, {self.disk_mb} MB on disk, about {self.seconds} s"


TABLE = {
    env.name: env
    for env in (
        Environment(
            "onnx2tf",
            "converts ONNX to TFLite",
            ("3.12",),
            # Those of its requirements that its TensorFlow-free backend imports: the whole list takes 660 MB.
            (
                "onnx2tf==2.6.9",
                "ai-edge-litert==2.1.2",
                "backports.strenum==1.2.8",
                "flatbuffers==25.12.19",
                "ml_dtypes==0.5.4",
                "numpy==2.2.6",
                "onnx==1.20.1",
                "onnxruntime==1.26.0",
                "packaging==26.3",
                "protobuf==7.35.1",
                "psutil==5.9.5",
                "sng4onnx==2.0.1",
                "tqdm==4.67.1",
                "typing_extensions==4.16.0",
            ),
            ("onnx2tf", "onnxruntime", "ai_edge_litert.interpreter"),
            download_mb=77,
            disk_mb=288,
            seconds=45,
        ),
        Environment(
            "tflite-runtime",
            "runs TFLite models as older boards do",
            ("3.11",),
            ("tflite-runtime==2.14.0", "numpy==1.26.4", "psutil==7.2.2"),
            ("tflite_runtime.interpreter", "psutil"),
            download_mb=21,
            disk_mb=87,
            seconds=15,
        ),
        Environment(
            "onnxruntime-gpu",
            "runs ONNX models on NVIDIA GPUs",
            ("3.11", "3.12", "3.13"),
            (
                "onnxruntime-gpu==1.31.1",
                "flatbuffers==25.12.19",
                "numpy==2.4.6",
                "packaging==26.3",
                "protobuf==7.36.2",
                "psutil==7.2.2",
            ),
            ("onnxruntime", "psutil"),
            download_mb=273,
            disk_mb=431,
            seconds=30,
            untested="CUDA 13 and cuDNN 9 must be on the machine; run on one H100, never on Windows or with TensorRT",
        ),
    )
}


@dataclass(frozen=True)
class State:
    """How an environment stands: `kind` is ready, absent or broken; `detail` says what is wrong."""

    kind: str
    detail: str = ""
    python: str = ""
    disk_mb: int | None = None


def home() -> Path:
    """The folder of all environments."""
    return cache_dir() / "environments"


def known(name: str) -> Environment:
    """The environment of that name.

    Raises:
        UsageError: there is none; the nearest is suggested.
    """
    if name not in TABLE:
        near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"the environment {name!r}", "no such environment", f"{hint}known: {', '.join(TABLE)}")
    return TABLE[name]


def interpreter_of(folder: Path) -> Path:
    """The interpreter in an environment's folder."""
    return folder / "bin" / "python"


def state(env: Environment) -> State:
    """How it stands, from its seal, its packages and a start of its interpreter (about 20 ms)."""
    if not env.folder.exists():
        return State("absent")
    try:
        seal = json.loads((env.folder / READY).read_text())
        pins, python, disk_mb = seal["pins"], str(seal["python"]), int(seal["disk_mb"])
    except (OSError, ValueError, KeyError, TypeError):
        return State("broken", "its creation did not end well")
    strange = _differences(env.folder, env.pins) if pins == list(env.pins) else ["other pins"]
    if strange:
        return State("broken", f"it was changed: {', '.join(strange[:3])}", python)
    found = version(interpreter_of(env.folder))
    if found != python:
        return State("broken", f"its Python does not run: {found or 'no answer'}", python)
    return State("ready", "", python, disk_mb)


def version(python: Path | str) -> str | None:
    """What an interpreter says that it is (``3.12.1``); None where it doesn't run."""
    asked = [str(python), "-I", "-S", "-c", "import platform; print(platform.python_version())"]
    try:
        ran = subprocess.run(asked, capture_output=True, text=True, timeout=START_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None if ran.returncode == 0 else None


def _differences(folder: Path, pins: Sequence[str]) -> list[str]:
    """Pins that aren't installed as such, and what else is."""
    have = {_canonical(info.name.removesuffix(".dist-info").replace("-", "==", 1)) for info in _infos(folder)}
    want = {_canonical(pin) for pin in pins}
    # pip comes with the environment, in the version of the Python that made it.
    extra = {one for one in have - want if one.partition("==")[0] not in ("pip", "setuptools")}
    return [f"{pin} is missing" for pin in sorted(want - have)] + [f"{one} is in it" for one in sorted(extra)]


def _infos(folder: Path) -> list[Path]:
    return list(folder.glob("lib/python3.*/site-packages/*.dist-info"))


def _canonical(pin: str) -> str:
    name, _, number = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={number}"


def ready(name: str) -> Path | None:
    """Its interpreter where it is ready, else None."""
    env = known(name)
    return interpreter_of(env.folder) if state(env).kind == "ready" else None


def missing(name: str, found: State | None = None) -> tuple[str, str]:
    """What to say where it isn't ready: what is missing, and what to type."""
    env = known(name)
    found = found or state(env)
    what = f"the environment {name} is broken: {found.detail}" if found.kind == "broken" else f"no environment {name}"
    return what, f"{env.command}  ({env.cost})"


def pinned(name: str, package: str) -> str:
    """The version of a package in an environment."""
    return dict(pin.split("==") for pin in known(name).pins)[package]


def need(name: str, asked: str) -> Path:
    """Its interpreter.

    Raises:
        MissingPart: it isn't ready; the error says what to type and what that takes.
    """
    python = ready(name)
    if python is None:
        raise MissingPart(asked, *missing(name))
    return python
