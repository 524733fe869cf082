"""What a converter can't do is told by its own tables, before it converts: by operator and module, never wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core import process
from seatrial.core.errors import CannotDo, Unsupported
from seatrial.exporter.build import Builder
from seatrial.exporter.convert import onnx_operators
from seatrial.exporter.plan import plan
from seatrial.exporter.program import Program
from seatrial.exporter.sources import detect

onnx = pytest.importorskip("onnx")
node = onnx.helper.make_node
FLOAT = onnx.TensorProto.FLOAT

# Beside what nobody translates: what torch takes apart (rot90, kron, in place, a branch) and what only some know.
OWN = """
import torch

@torch.library.custom_op("mylib::twist", mutates_args=())
def twist(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1) * 2

@twist.register_fake
def _(x):
    return torch.empty_like(x)

class Twist(torch.nn.Module):
    def forward(self, x):
        return torch.ops.mylib.twist(x)

class Known(torch.nn.Module):
    def forward(self, x):
        x = torch.kron(x.rot90(1, (1, 2)).contiguous().copy_(x.sin()), torch.ones(1, 1, 2)).logcumsumexp(-1)
        return torch.cond(x.sum() > 0, lambda y: y.sinc(), lambda y: y - 1, (x,))

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(8, 8), Twist())
        self.head = Known()

    def forward(self, x):
        return self.head(torch.special.airy_ai(self.body(x)))

def get_model():
    torch.manual_seed(0)
    return Net().eval()

def get_args():
    return (torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0)),)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Any:
    """A builder and the Program of a module with an operator of its own."""
    needs("torch", "onnxscript", "openvino", "litert_torch")
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    with Builder(folder / "work") as builder:
        yield builder, builder.capture(detect(folder / "own.py"), ("onnxruntime", "openvino", "tflite"))


@pytest.mark.parametrize(
    ("target", "route", "reason"),
    [
        (
            "onnxruntime",
            "torch → onnx",
            "torch's ONNX exporter has no translation of the operator mylib::twist (body.1)",
        ),
        ("openvino", "torch → openvino", "the operator mylib::twist (body.1) is defined by the model's own code"),
        ("tflite", "torch → tflite", "the operator mylib::twist (body.1) is defined by the model's own code"),
    ],
)
def test_an_operator_of_ones_own_is_named_with_its_module_and_never_converted(
    own: tuple[Builder, Program], target: str, route: str, reason: str
) -> None:
    builder = own[0]
    error = refused(own, target)
    assert f"{route}: {reason}" in error.found
    assert "replace the operator" in error.todo
    logs = "".join(log.read_text() for log in builder.folder.glob("log/*/log.txt"))
    assert "Lowering not found" not in logs and "Failed to convert the exported program" not in logs


def test_what_torch_or_the_converter_takes_apart_is_no_gap(own: tuple[Builder, Program]) -> None:
    for target, step, kinds in (
        ("onnxruntime", "torch-onnx", ["mylib::twist", "aten::special_airy_ai"]),
        ("openvino", "torch-openvino", ["mylib::twist"]),  # it doesn't tell which of torch's it knows
        ("tflite", "torch-tflite", ["mylib::twist", "aten::special_airy_ai", "aten::logcumsumexp"]),
    ):
        refused(own, target)
        error = json.loads((own[0].folder / f"converted/{step}/error.json").read_text())
        named = [text.partition("the operator ")[2].split(" ")[0] for text in error["found"].split("; ")]
        assert sorted(named) == sorted(kinds), step


def refused(own: tuple[Builder, Program], target: str) -> CannotDo:
    builder, program = own
    with pytest.raises(CannotDo) as caught:
        builder.convert(program, target)
    return caught.value


def foreign(path: Path, kind: str, domain: str = "") -> Path:
    """A model with one operator, named ``body.1/odd``, that somebody doesn't know."""
    nodes = [node("Relu", ["x"], ["a"]), node(kind, ["a"], ["b"], name="body.1/odd", domain=domain)]
    nodes += [
        node("ConcatFromSequence", ["b"], ["y"], axis=0) if kind == "SplitToSequence" else node("Relu", ["b"], ["y"])
    ]
    ports = [onnx.helper.make_tensor_value_info(name, FLOAT, [2, 4]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:])
    sets = [onnx.helper.make_opsetid("", 17), *([onnx.helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(onnx.helper.make_model(graph, opset_imports=sets, ir_version=9), str(path))
    return path


def dry_run(model: Path, target: str) -> list[dict[str, Any]]:
    return plan(model, target, "fp32", {"args": {}, "inputs": None, "shapes": {}, "ranges": {}})


def test_an_operator_of_an_unknown_domain_is_named_with_its_node(tmp_path: Path) -> None:
    model = foreign(tmp_path / "m.onnx", "Twist", "my.lib")
    reason = "ONNX Runtime has no operator Twist of the domain my.lib (body.1/odd)"
    with pytest.raises(Unsupported) as caught:
        seatrial.export(model, ["onnxruntime", "openvino"], output=tmp_path / "b")
    assert caught.value.found == reason
    for row in dry_run(model, "onnxruntime,openvino"):
        assert not row["usable"] and row["reason"] == reason
        assert row["operators"] == "held against ONNX Runtime"


def test_onnx2tf_tells_before_it_converts(environment: Callable[[str], Path], tmp_path: Path) -> None:
    environment("onnx2tf")
    model = foreign(tmp_path / "m.onnx", "SplitToSequence")
    [row] = dry_run(model, "tflite")
    assert row["reason"].startswith("onnx2tf has no operator SplitToSequence (body.1/odd)") and not row["usable"]
    assert row["operators"] == "held against ONNX Runtime, onnx → tflite"
    assert dry_run(model, "onnxruntime")[0]["usable"]


def test_a_dry_run_says_where_operators_were_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def get_model():\n    raise SystemExit('a dry run runs nothing')\n")
    for row in dry_run(tmp_path / "model.py", "onnxruntime,openvino"):
        assert row["operators"].startswith("not looked at: ")


def test_a_table_that_is_not_where_it_was_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moved_table.py").write_text(
        "def gaps(source, program):\n    from json import a_registry_that_moved\n"
        "def convert(source, out, program):\n    open(out, 'w').close()\n    return {}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    args = {
        "function": "moved_table:convert",
        "label": "a → b",
        "source": "",
        "program": "",
        "out": str(tmp_path / "o"),
    }
    process.call("seatrial.exporter.convert.look:convert", args, workdir=tmp_path / "w", label="it")
    assert (tmp_path / "o").exists()
    tell = {"function": "moved_table:convert", "source": ""}
    call = "seatrial.exporter.convert.look:tell"
    assert process.call(call, tell, workdir=tmp_path / "w", label="it") == {"gaps": None}


def test_what_fixed_sizes_fold_is_no_gap() -> None:
    """A shape's parts and constants are folded away; what depends on the input's values isn't, in a branch neither."""
    inner = onnx.helper.make_graph(
        [node("Odd", ["x"], ["i"])], "b", [], [onnx.helper.make_tensor_value_info("i", 1, None)]
    )
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("SplitToSequence", ["s"], ["parts"]),
        node("Odd", ["w"], ["c"]),
        node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner),
        node("Add", ["c", "z"], ["y"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones(2, np.float32), "w"), onnx.numpy_helper.from_array(np.True_, "yes")]
    ports = [onnx.helper.make_tensor_value_info(name, FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    assert [each.op_type for each in onnx_operators.lasting(graph)] == ["If", "Odd", "Odd", "Add"]
