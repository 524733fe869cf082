"""A declared detector is judged by what it finds, in whatever order; what it finds wrongly is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core import process, samples
from seatrial.core.bundle import MANIFEST, SEAL, seal
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.core.ids import file_sha256
from seatrial.exporter.program import Program
from seatrial.exporter.proof import degenerate, detections, parity
from seatrial.exporter.run import verify
from seatrial.exporter.sources.job import Job

onnx = pytest.importorskip("onnx")

Feeds = list[dict[str, np.ndarray]]
DECLARED = "boxes=found,scores=scores,classes=classes"
N = 12


def detector(path: Path, order: list[int] | None = None) -> Path:
    """Up to five boxes of each of two classes, by non-maximum suppression over twelve anchors.

    Two anchors far apart have one score: which of them comes first, only their order tells.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    order = order or list(range(N))
    centres = rng.standard_normal((8, N, 2)).astype(np.float32) * 3
    scores = rng.standard_normal((8, 2, N)).astype(np.float32)
    centres[:, 3], scores[:, :, 3] = -centres[:, 7], scores[:, :, 7]
    weights = {
        "wc": centres[:, order].reshape(8, -1),
        "ws": scores[:, :, order].reshape(8, -1),
        "sc": np.array([1, N, 2]),
        "ss": np.array([1, 2, N]),
        "half": np.array(0.1, np.float32),
        "most": np.array([5]),
        "iou": np.array([0.5], np.float32),
        "least": np.array([0.2], np.float32),
        "first": np.array([0]),
        "one": np.array(1),
        "two": np.array(2),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "wc"], ["c0"]),
        node("Sigmoid", ["c0"], ["c1"]),
        node("Reshape", ["c1", "sc"], ["c"]),
        node("Sub", ["c", "half"], ["low"]),
        node("Add", ["c", "half"], ["high"]),
        node("Concat", ["low", "high"], ["boxes"], axis=2),
        node("MatMul", ["x", "ws"], ["s0"]),
        node("Sigmoid", ["s0"], ["s1"]),
        node("Reshape", ["s1", "ss"], ["s"]),
        node("NonMaxSuppression", ["boxes", "s", "most", "iou", "least"], ["chosen"]),
        node("GatherND", ["s", "chosen"], ["scores"]),
        node("Gather", ["chosen", "one"], ["kind"], axis=1),
        node("Gather", ["chosen", "two"], ["which"], axis=1),
        node("Cast", ["kind"], ["classes"], to=TensorProto.FLOAT),
        node("Squeeze", ["boxes", "first"], ["flat"]),
        node("Gather", ["flat", "which"], ["found"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 8]), ("found", ["n", 4]), ("scores", ["n"]), ("classes", ["n"]))
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Feeds, Feeds]:
    """Of two real graphs that mean the same, and whose anchors stand in another order."""
    runtime = pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("detector")
    feeds = [np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32) for i in range(4)]
    found: list[Feeds] = []
    for order in (list(range(N)), list(range(N))[::-1]):
        session = runtime.InferenceSession(str(detector(folder / "d.onnx", order)), providers=["CPUExecutionProvider"])
        names = [end.name for end in session.get_outputs()]
        found.append([dict(zip(names, session.run(None, {"x": feed}), strict=True)) for feed in feeds])
    return found[0], found[1]


def judged(want: Feeds, have: Feeds, precision: str = "fp32", **more: Any) -> parity.Parity:
    declared = {**detections.read(DECLARED, "it"), **more}
    return parity.compare(precision, [str(i) for i in range(len(want))], want, have, declared=declared)


def test_detections_in_another_order_are_the_same(answers: tuple[Feeds, Feeds]) -> None:
    want, have = answers
    assert any(not np.array_equal(a["found"], b["found"]) for a, b in zip(want, have, strict=True))
    assert not parity.compare("fp32", list("0123"), want, have).ok
    check = judged(want, have)
    assert check.ok and check.detections and not check.outputs
    assert check.detections.n > 10 and check.detections.matched == 1
    assert (check.detections.lowest_iou or 0) > 0.999 and check.detections.score_difference < 1e-5
    assert json.loads(json.dumps(check.to_dict()))["detections"]["n"] == check.detections.n


def _shift(out: dict[str, np.ndarray]) -> None:
    out["found"][0] += 0.01


def _swap_class(out: dict[str, np.ndarray]) -> None:
    out["classes"][0] = 1 - out["classes"][0]


def _lose(out: dict[str, np.ndarray]) -> None:
    for name, array in out.items():
        out[name] = array[1:]


def _add(out: dict[str, np.ndarray]) -> None:
    for name, array in out.items():
        out[name] = np.concatenate([array, array[:1]])


def _score(out: dict[str, np.ndarray]) -> None:
    out["scores"][0] -= 0.01


def _nothing(out: dict[str, np.ndarray]) -> None:
    out["found"][...] = np.nan


BROKEN = [_shift, _swap_class, _lose, _add, _score, _nothing]


@pytest.mark.parametrize("spoil", BROKEN)
def test_a_wrong_detection_is_found(answers: tuple[Feeds, Feeds], spoil: Callable[[Any], None]) -> None:
    want, have = answers[0], [{name: array.copy() for name, array in out.items()} for out in answers[1]]
    spoil(have[2])
    check = judged(want, have)
    assert not check.ok and "detections matched" in check.problems[0] and "(2), needed 100%" in check.problems[0]


def test_only_a_declared_threshold_or_limit_excuses_one_that_comes_and_goes(answers: tuple[Feeds, Feeds]) -> None:
    want = answers[0]
    last = int(np.argmin(want[0]["scores"]))
    lost = [{name: np.delete(array, last, 0) for name, array in want[0].items()}]
    score = float(want[0]["scores"][last])
    assert not judged(want[:1], lost).ok
    assert judged(want[:1], lost, threshold=score - 5e-4).ok
    assert not judged(want[:1], lost, threshold=score - 0.01).ok
    other = {name: array.copy() for name, array in want[0].items()}
    other["found"][last] += 0.5
    assert not judged(want[:1], [other]).ok
    assert judged(want[:1], [other], limit=len(want[0]["scores"])).ok


def test_padding_and_other_forms_of_boxes_are_understood(answers: tuple[Feeds, Feeds]) -> None:
    """One output of (1, 30, 6) with centres and sizes, padded with zeros, and a count."""
    whole = []
    for side in answers:
        out = side[0]
        low, high = out["found"][:, :2], out["found"][:, 2:]
        rows = np.concatenate([(low + high) / 2, high - low, out["scores"][:, None], out["classes"][:, None]], 1)
        whole.append({"y": np.concatenate([rows, np.zeros((30 - len(rows), 6))])[None].astype(np.float32)})
    declared = detections.read("boxes=y,scores=y:4,classes=y:5,format=cxcywh", "it")
    check = parity.compare("fp32", ["a"], whole[:1], whole[1:], declared=declared)
    assert check.ok and check.detections and check.detections.n == len(answers[0][0]["scores"])
    for form in ("cxcywh", "xywh"):
        moved = {"y": whole[0]["y"] + np.array([0, 0.002, 0, 0, 0, 0], np.float32)}
        found = parity.compare("fp16", ["a"], whole[:1], [moved], declared={**declared, "format": form}).detections
        assert found and found.lowest_iou == pytest.approx(0.198 / 0.202, abs=1e-4)  # boxes are 0.2 wide and high
    counted = [{**out, "n": np.array([2.0], np.float32)} for out in whole]
    assert detections.count(counted[0], {**declared, "count": "n"}) == 2


def test_a_detector_that_finds_nothing_proves_nothing(answers: tuple[Feeds, Feeds]) -> None:
    declared = detections.read(DECLARED, "it")
    empty = [{name: array[:0] for name, array in out.items()} for out in answers[0]]
    assert degenerate.judge(answers[0], declared=declared) == ([], [])
    assert "detects nothing" in degenerate.judge(empty, declared=declared)[0][0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("boxes=a", "doesn't name the output of the scores"),
        ("boxes=a,scores=b,kind=c", "there is no 'kind'"),
        ("boxes=a,scores=b,format=yolo", "no such format: yolo"),
        ("boxes=a,scores=b,threshold=low", "threshold=low is no number"),
    ],
)
def test_a_declaration_that_can_not_be_read_is_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        detections.read(text, "--detections")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, needs: Any) -> Any:
    needs("openvino")
    folder = tmp_path_factory.mktemp("made")
    path = detector(folder / "detector.onnx")
    return seatrial.export(path, ["onnxruntime", "openvino"], detections=DECLARED, output=folder / "out")


def test_a_detector_goes_to_two_runtimes_and_its_report_says_how_well(made: Any) -> None:
    for one in made:
        found = one.proof.parity.detections
        assert found.matched == 1 and found.n > 10, one.bundle.target
        assert f"100.0% of {found.n} detections matched" in (one.bundle.path / "report.md").read_text()
        assert one.bundle.manifest["tolerance"]["detections"] == detections.BARS["fp32"]


def repacked(bundle: Path, out: Path, change: Callable[[Feeds], None]) -> tuple[bool, int]:
    """Whether `verify` holds, and how the selftest ends, where the golden outputs are others."""
    import shutil

    shutil.copytree(bundle, out)
    outputs = samples.load(out / "golden/outputs.npz")
    change(outputs)
    samples.save(out / "golden/outputs.npz", outputs)
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["files"]["golden/outputs.npz"]["sha256"] = file_sha256(out / "golden/outputs.npz")
    (out / MANIFEST).write_text(json.dumps(manifest))
    (out / SEAL).write_text(seal(out / MANIFEST))
    done = subprocess.run([sys.executable, "-B", "selftest.py"], cwd=out, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    try:
        verify(out)
    except CheckFailed:
        return False, done.returncode
    return True, done.returncode


def _reverse(outputs: Feeds) -> None:
    for out in outputs:
        for name in out:
            out[name] = out[name][::-1].copy()


def test_golden_detections_may_come_in_another_order_and_not_elsewhere(made: Any, tmp_path: Path) -> None:
    bundle = made[1].bundle.path
    assert repacked(bundle, tmp_path / "a", _reverse) == (True, 0)
    assert repacked(bundle, tmp_path / "b", lambda outputs: _shift(outputs[1])) == (False, 1)
    assert repacked(bundle, tmp_path / "c", lambda outputs: _swap_class(outputs[1])) == (False, 1)


def test_outputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no output 'rects'"):
        seatrial.export(detector(tmp_path / "d.onnx"), detections="boxes=rects,scores=scores", output=tmp_path / "o")


SOURCE = """
import torch

class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(8, 60)

    def forward(self, x):
        rows = torch.sigmoid(self.body(x)).reshape(1, 10, 6)
        return {"boxes": rows[..., :4], "scores": rows[..., 4], "kinds": (rows[..., 5] > 0.5).float()}

def get_model():
    torch.manual_seed(0)
    return Detector().eval()

def get_args():
    return (torch.randn(1, 8, generator=torch.Generator().manual_seed(0)),)

def get_detections():
    return {"boxes": "boxes", "scores": "scores", "classes": "kinds", "format": "cxcywh"}
"""


def test_a_python_file_declares_its_own_detector(tmp_path: Path, needs: Any) -> None:
    needs("torch")
    path = tmp_path / "detector.py"
    path.write_text(SOURCE)
    (tmp_path / "program").mkdir()
    job = Job(str(path), "detector", str(tmp_path / "program")).to_dict()
    process.call("seatrial.exporter.sources.python_file:capture", {"job": job}, workdir=tmp_path / "log", label="it")
    program = Program.load(tmp_path / "program")
    assert program.detections["classes"] == "kinds" and program.detections["format"] == "cxcywh"
    assert sum(detections.count(out, program.detections) for out in program.reference_outputs("main")) == 40
    assert not program.capture_problems
