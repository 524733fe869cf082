"""The same source gives the same bytes: in another clone, folder, HOME, time zone, hash seed and TMPDIR."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import seatrial

Cli = Callable[..., Any]
FLOORS = ("cli", "core", "devices", "exporter", "search", "targets")
TARGETS = ("onnxruntime", "openvino", "tflite")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of somebody else: a clone of ours in another place, and everything about them different."""
    folder = tmp_path_factory.mktemp("somebody") / "else's deep" / "folder"
    clone = folder / "clone"
    source = Path(seatrial.__file__).resolve().parent
    for floor in FLOORS:
        shutil.copytree(source / floor, clone / floor, ignore=shutil.ignore_patterns("__pycache__"))
    for file in source.glob("*.py"):
        shutil.copy(file, clone)
    for name in ("path", "home", "tmp", "cache"):
        (folder / name).mkdir()
    (folder / "path" / "seatrial").symlink_to(clone)
    return {
        "PYTHONPATH": str(folder / "path"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TZ": "Pacific/Chatham",
        "PYTHONHASHSEED": "4321",
        "LOGNAME": "somebody",
        "USER": "somebody",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_same_bytes(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert a.keys() == b.keys()
    differ = [name for name in a if a[name] != b[name] and not name.endswith("measurements.json")]
    assert not differ, f"{one} and {other} differ in {', '.join(differ)}"


@pytest.fixture(scope="module")
def again(
    bundles: Path, tmp_path_factory: pytest.TempPathFactory, cli: Cli, classifier: Any, elsewhere: Mapping[str, str]
) -> Path:
    """The bundles of `bundles` once more, by somebody else, called from another working folder."""
    folder = tmp_path_factory.mktemp("another place") / "deeper"
    model, *options = classifier(folder / "models")
    data = options.index("calibration.npz")
    options[data] = str(folder / "models" / "calibration.npz")
    argv = ["export", str(folder / "models" / model), *options, "--target", ",".join(TARGETS), "-o", "out"]
    done = cli(*argv, cwd=folder, env=elsewhere)
    assert done.code == 0, done.err
    return folder / "out"


def test_the_other_clone_is_the_one_that_runs(elsewhere: Mapping[str, str]) -> None:
    import os
    import subprocess

    argv = [sys.executable, "-P", "-c", "import seatrial, seatrial.cli; print(seatrial.cli.__file__)"]
    done = subprocess.run(argv, env={**os.environ, **elsewhere}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(elsewhere["PYTHONPATH"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("target", TARGETS)
def test_two_clones_give_the_same_bytes(bundles: Path, again: Path, target: str, precision: str) -> None:
    assert_same_bytes(bundles / f"{target}-{precision}", again / f"{target}-{precision}")


def test_a_foreign_onnx_gives_the_same_bytes(
    tmp_path: Path, cli: Cli, tiny_onnx: Callable[..., Path], elsewhere: Mapping[str, str], needs: Callable[..., None]
) -> None:
    needs("openvino")
    outs = []
    for name, env in (("one", {}), ("other", elsewhere)):
        folder = tmp_path / name
        folder.mkdir()
        model = tiny_onnx(folder / "tiny.onnx", free=True, repeat=3)
        argv = ["export", model, "--target", "onnxruntime,openvino", "--shape", "x=3,8", "-o", folder / "out"]
        done = cli(*argv, cwd=tmp_path if name == "one" else folder, env=env)
        assert done.code == 0, done.err
        outs.append(folder / "out")
    assert_same_bytes(*outs)


def test_the_bytes_depend_on_the_weights(tmp_path: Path, cli: Cli, tiny_onnx: Callable[..., Path]) -> None:
    """Otherwise the tests above would prove nothing."""
    for name, repeat in (("one", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        tiny_onnx(tmp_path / name / "tiny.onnx", repeat=repeat)
        done = cli("export", "tiny.onnx", "-o", "out", cwd=tmp_path / name)
        assert done.code == 0, done.err
    with pytest.raises(AssertionError, match=r"model\.onnx"):
        assert_same_bytes(tmp_path / "one" / "out", tmp_path / "other" / "out")
