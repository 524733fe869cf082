"""Shared fixtures: folders of the tests' own, the command as a user runs it, tiny models, one small bundle."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

TORCH_MODEL = """
import torch


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(8, 16)
        self.last = torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def get_model():
    return Tiny().eval()


def get_args():
    return (torch.randn(1, 8, generator=torch.Generator().manual_seed(1)),)
"""

CLASSIFIER = """
import torch


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(8, 6)

    def forward(self, image):
        hidden_by_nobody = torch.relu(self.conv(image)).mean((2, 3))
        return self.head(hidden_by_nobody)


def get_model():
    return Classifier().eval()


def get_args():
    return (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)),)


def get_labels():
    return ["ant", "bee", "cat", "dog", "eel", "fox"]


def get_preprocess():
    return {"size": 16, "resize": 18, "crop": "center"}
"""


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache and a lease of this session's own: no test waits for, or sees, what else runs on this machine."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("SEATRIAL_LEASE_DIR", str(folder / "lease"))
        yield


USERS_CACHE = os.environ.get("XDG_CACHE_HOME")


@pytest.fixture(scope="session")
def needs() -> Callable[..., None]:
    """`needs("torch", "openvino")` skips where one isn't installed, and imports none.

    Libraries that never meet in a process of ours need not meet in that of the tests either: litert_torch beside a CUDA
    build of torch has ended it with a segmentation fault.
    """

    def check(*modules: str) -> None:
        for name in modules:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")

    return check


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """`environment("onnx2tf")` is its interpreter: the user's own where that is ready, else one made for this session.

    Skips where no Python that it needs is here.
    """
    from seatrial.core import environments
    from seatrial.core.errors import MissingPart
    from seatrial.devices.environments import make

    @functools.cache
    def interpreter(name: str) -> Path:
        env = environments.known(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", USERS_CACHE) if USERS_CACHE else patch.delenv("XDG_CACHE_HOME")
            users = env.folder if environments.state(env).kind == "ready" else None
        if users:
            env.folder.parent.mkdir(parents=True, exist_ok=True)
            env.folder.symlink_to(users)
        try:
            return make(name)
        except MissingPart as missing:
            pytest.skip(missing.found)

    return interpreter


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def fails(self, code: int, *words: str) -> None:
        """It ended with `code` and one clear error that holds all `words`."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err + self.out, self.err
        assert "unexpected error" not in self.err, self.err
        assert len(re.findall("^[Ee]rror: ", self.err, re.MULTILINE)) == (code != 130), self.err
        assert "error: " not in self.err or ("\n  found: " in self.err and "\n  to do: " in self.err), self.err
        for word in words:
            assert word in self.err, f"{word!r} is not in:\n{self.err}"


Cli = Callable[..., Ran]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`cli("export", "a.onnx", cwd=..., env=...)` runs the real command in a process of its own."""

    def run(
        *args: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        timeout: float = 120,
        **options: Any,
    ) -> Ran:
        argv = [*prefix, *COMMAND, *map(str, args)]
        full = {**os.environ, **(env or {})}
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=full,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            **options,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """`main("export", "a.onnx")`: the command in this very process, which saves its start; children are real."""
    from seatrial import cli

    def run(*args: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in args])
        out, err = capsys.readouterr()
        return Ran(int(end.value.code or 0), out, err)

    old = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, old)


COMMAND = (sys.executable, "-P", "-m", "seatrial")


def write_onnx(path: Path, *, free: bool = False, repeat: int = 1) -> Path:
    """`x` of (1, 8) or (batch, 8) → MatMul, Tanh → `y`; more layers of (8, 8) with `repeat`."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, at = [], [], "x"
    for i in range(repeat):
        out = "y" if i == repeat - 1 else f"t{i}"
        weights.append(numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), f"w{i}"))
        nodes += [helper.make_node("MatMul", [at, f"w{i}"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [out])]
        at = out
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch" if free else 1, 8]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def tiny_onnx() -> Callable[..., Path]:
    """`tiny_onnx(path, free=False, repeat=1)` writes a tiny ONNX model."""
    return write_onnx


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """A tiny ONNX model in a fresh folder."""
    return write_onnx(tmp_path / "tiny.onnx")


@pytest.fixture
def torch_file(tmp_path: Path) -> Path:
    """A tiny torch model's file in a fresh folder."""
    path = tmp_path / "tiny.py"
    path.write_text(TORCH_MODEL)
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """A real bundle of the tiny ONNX model for ONNX Runtime; copy it before changing it."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    write_onnx(folder / "tiny.onnx")
    done = cli("export", "tiny.onnx", "-o", "bundle", cwd=folder)
    assert done.code == 0, done.err
    assert json.loads((folder / "bundle" / "manifest.json").read_text())["target"] == "onnxruntime"
    return folder / "bundle"


def write_classifier(folder: Path) -> list[str]:
    """A tiny torch classifier of photos and its calibration data in `folder`; the arguments of an export of both."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classifier.py").write_text(CLASSIFIER)
    images = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "calibration.npz", image=images)
    return ["classifier.py", "--precision", "fp32,int8", "--calibration", "calibration.npz"]


@pytest.fixture(scope="session")
def classifier() -> Callable[[Path], list[str]]:
    """`classifier(folder)` writes a tiny torch classifier of photos and its calibration data."""
    return write_classifier


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """Real bundles of the tiny classifier, ``TARGET-PRECISION`` for three targets, fp32 and int8; copy to change."""
    for module in ("torch", "litert_torch", "onnxruntime", "openvino", "nncf", "ai_edge_quantizer"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("bundles")
    arguments = write_classifier(folder)
    done = cli("export", *arguments, "--target", "onnxruntime,openvino,tflite", "-o", "out", cwd=folder)
    assert done.code == 0, done.err
    return folder / "out"


DISTRIBUTIONS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tflite": "ai-edge-litert"}


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """`bare_python(target)` is the command of a Python that can import numpy, that runtime and what it needs only."""

    @functools.cache
    def command(target: str) -> tuple[str, ...]:
        folder = tmp_path_factory.mktemp(f"bare-{target}")
        _link_distributions(["numpy", DISTRIBUTIONS[target]], folder)
        return ("/usr/bin/env", f"PYTHONPATH={folder}", sys.executable, "-S", "-s", "-P", "-B")

    return lambda target: list(command(target))


def _link_distributions(names: list[str], folder: Path) -> None:
    """Link installed distributions and, from one to the next, what they need without extras."""
    todo, done = list(names), set()
    while todo:
        name = todo.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # not needed on this version of Python
        for top in {Path(file).parts[0] for file in distribution.files or []} - {"..", "__pycache__", "bin"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
        needed = {re.split(r"[^\w.-]", text)[0] for text in distribution.requires or [] if "extra ==" not in text}
        todo += sorted(needed - done)
        done |= needed
