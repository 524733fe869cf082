"""Golden vectors of a file that came in int8: another CPU's correct kernels pass, a broken board doesn't."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import seatrial
from seatrial.core import samples
from seatrial.core.bundle import MANIFEST, SEAL, seal
from seatrial.core.errors import CheckFailed
from seatrial.core.ids import file_sha256
from seatrial.exporter.run import verify

Arrays = list[np.ndarray]


@pytest.fixture(scope="module")
def bundle(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a ``.tflite`` with int8 weights, activations, inputs and outputs, as it is."""
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    from ai_edge_quantizer.qtyping import TFLOperationName

    tool = quantizer.Quantizer(str(bundles / "tflite-fp32/model.tflite"))
    tool.add_static_config(".*", TFLOperationName("*"), activation_num_bits=8, weight_num_bits=8)
    rng = np.random.default_rng(0)
    feeds = [{"image": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]
    folder = tmp_path_factory.mktemp("int8")
    made = tool.quantize(tool.calibrate({"serving_default": feeds}))
    (folder / "int8.tflite").write_bytes(bytes(made.quantized_model))
    [one] = seatrial.export(folder / "int8.tflite", "tflite", output=folder / "out")
    assert one.bundle.manifest["quanta"] and one.bundle.manifest["outputs"][0]["dtype"] == "int8"
    return one.bundle.path


def by_some_quanta(outputs: Arrays) -> Arrays:
    """As AVX2 and VNNI differ: each number by up to two."""
    rng = np.random.default_rng(0)
    return [np.clip(a + rng.integers(-2, 3, a.shape), -128, 127) for a in outputs]


def of_another_order(outputs: Arrays) -> Arrays:
    return [a[..., ::-1] for a in outputs]


def without_zero_point(outputs: Arrays) -> Arrays:
    return [np.clip(a + 20, -128, 127) for a in outputs]


def of_half_the_scale(outputs: Arrays) -> Arrays:
    return [a // 2 for a in outputs]


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        (by_some_quanta, True),
        (of_another_order, False),
        (without_zero_point, False),
        (of_half_the_scale, False),
    ],
)
def test_golden_integers_are_compared_as_numbers(
    bundle: Path, tmp_path: Path, change: Callable[[Arrays], Arrays], fine: bool
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    outputs = samples.load(copy / "golden/outputs.npz")
    [name] = outputs[0]
    changed = change([out[name].astype(int) for out in outputs])
    assert not all(np.array_equal(new, out[name]) for new, out in zip(changed, outputs, strict=True))
    samples.save(copy / "golden/outputs.npz", [{name: new.astype(np.int8)} for new in changed])
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["golden/outputs.npz"]["sha256"] = file_sha256(copy / "golden/outputs.npz")
    (copy / MANIFEST).write_text(json.dumps(manifest))
    (copy / SEAL).write_text(seal(copy / MANIFEST))
    argv = [sys.executable, "-B", "selftest.py"]
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if fine else 1), done.stdout + done.stderr
    if fine:
        assert 20 < (verify(copy)["sqnr_db"] or 0) < 60
    else:
        assert "all vectors, " in done.stdout and "dB, needed 20" in done.stdout
        with pytest.raises(CheckFailed, match="golden vectors are met at"):
            verify(copy)
