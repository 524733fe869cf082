"""`seatrial inspect`: what a file holds is told the same in three formats, and no file can crash or fool it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import seatrial
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.exporter.inspect import inspect, ir_file, onnx_file, tflite_file
from seatrial.exporter.inspect.flatbuffer import Broken, root
from seatrial.exporter.inspect.tflite_file import contents
from seatrial.exporter.inspect.tflite_names import OPERATORS, TYPES

TARGETS = ("onnxruntime", "openvino", "tflite")
# conv: 8 × 8 × 8 outputs of 3 × 3 × 3 products; head: 6 outputs of 8.
MACS = 8 * 8 * 8 * 27 + 6 * 8


def test_three_formats_of_one_model_tell_the_same(bundles: Path) -> None:
    for target in TARGETS:
        found = inspect(bundles / f"{target}-fp32")
        assert found["macs"] == MACS and not found["macs_not_counted"], target
        assert found["precision"] == "fp32" and found["heavy"] == {"fp32": 2}, target
        assert found["inputs"][0]["shape"] == [1, 3, 16, 16], target
        floats = found["parameters"]["by_dtype"]["float32"]["count"]
        assert 8 * 27 + 8 + 48 + 6 <= floats <= 8 * 27 + 8 + 48 + 6 + 4, target
        assert sum(f["size_bytes"] for f in found["files"]) == found["size_bytes"] > 1000


def test_int8_is_seen_in_three_formats(bundles: Path) -> None:
    for target in TARGETS:
        found = inspect(bundles / f"{target}-int8")
        assert found["precision"] == "int8" and found["heavy"] == {"int8": 2}, target
        assert found["macs"] == MACS and found["parameters"]["by_dtype"]["int8"]["count"] >= 8 * 27 + 48, target


def test_a_raw_file_reads_as_in_its_bundle_and_names_agree_with_the_runtime(bundles: Path) -> None:
    readers = (onnx_file.read, ir_file.read, tflite_file.read)
    for target, name, read in zip(TARGETS, ("model.onnx", "model.xml", "model.tflite"), readers, strict=True):
        raw = read(str(bundles / f"{target}-fp32" / name))
        manifest = json.loads((bundles / f"{target}-fp32" / "manifest.json").read_text())
        for side in ("inputs", "outputs"):
            assert [(s["name"], s["dtype"], s["shape"]) for s in raw[side]] == [
                (s["name"], s["dtype"], s["shape"]) for s in manifest[side]
            ], target


def test_a_bundle_tells_its_proof_and_whether_it_is_what_was_packed(bundles: Path, tmp_path: Path) -> None:
    found = inspect(bundles / "tflite-int8")["bundle"]
    assert found["hashes"] == "verified" and found["parity"]["ok"] and found["parity"]["sqnr_db"] > 10
    assert found["settings"]["delegate"] == "xnnpack" and found["calibration_id"] and found["source"]["id"]
    assert found["proven_on"]["cpu"] and found["allow_mismatch"] is False
    copy = shutil.copytree(bundles / "tflite-int8", tmp_path / "copy")
    with (copy / "labels.txt").open("a") as file:
        file.write("gnu\n")
    assert inspect(copy)["bundle"]["hashes"] == "NOT verified: labels.txt has changed"
    with (copy / "manifest.json").open("a") as file:
        file.write("\n")
    with pytest.raises(CheckFailed):
        inspect(copy)


def test_the_command_prints_shapes_and_json_holds_everything(bundles: Path, tiny_onnx, tmp_path: Path, main) -> None:
    assert "[batch, 8]" in main("inspect", tiny_onnx(tmp_path / "free.onnx", free=True)).out
    done = main("inspect", bundles / "onnxruntime-int8")
    assert done.code == 0, done.err
    for words in ("[1, 3, 16, 16]", "precision: int8", "hashes verified", "parity: ok", "licence of the weights"):
        assert words in done.out
    data = json.loads(main("inspect", bundles / "onnxruntime-int8" / "model.onnx", "--json").out)
    assert data["made_by"]["opset"]["ai.onnx"] >= 17 and data["kind"] == "onnx"
    assert seatrial.inspect(bundles / "onnxruntime-int8" / "model.onnx") == data


def test_a_free_batch_is_named_and_counted_with_1(tiny_onnx, tmp_path: Path) -> None:
    found = onnx_file.read(str(tiny_onnx(tmp_path / "free.onnx", free=True, repeat=3)))
    assert found["inputs"][0]["shape"] == ["batch", 8]
    assert found["macs"] == 3 * 64 and found["ops"] == {"MatMul": 3, "Tanh": 3}
    assert "a batch of 1" in found["notes"][0]


def test_a_free_batch_that_an_old_exporter_wrote_as_minus_one_is_free(tiny_onnx, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx(tmp_path / "old.onnx")))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, str(tmp_path / "old.onnx"))
    found = onnx_file.read(str(tmp_path / "old.onnx"))
    assert found["inputs"][0]["shape"] == ["x.0", 8] and found["macs"] == 64


def test_what_cant_be_counted_is_named(tiny_onnx, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx(tmp_path / "free.onnx")))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim.add().CopyFrom(port.type.tensor_type.shape.dim[1])
        port.type.tensor_type.shape.dim[1].dim_param = "length"
    onnx.save(model, str(tmp_path / "length.onnx"))
    found = onnx_file.read(str(tmp_path / "length.onnx"))
    assert found["inputs"][0]["shape"] == [1, "length", 8]
    assert found["macs"] is None and found["macs_not_counted"] == {"MatMul": 1}


def test_external_data_is_measured_and_what_is_missing_or_outside_is_said(tiny_onnx, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx(tmp_path / "plain.onnx")))
    path = tmp_path / "big.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="big.data", size_threshold=0)
    found = onnx_file.read(str(path))
    assert [f["name"] for f in found["files"]] == ["big.onnx", "big.data"]
    assert found["files"][1]["size_bytes"] == (tmp_path / "big.data").stat().st_size
    assert found["parameters"]["count"] == 64
    (tmp_path / "big.data").unlink()
    found = onnx_file.read(str(path))
    assert found["files"][1]["size_bytes"] is None and "are missing" in found["notes"][0]
    broken = onnx.load(str(path), load_external_data=False)
    broken.graph.initializer[0].external_data[0].value = "../secret"
    path.write_bytes(broken.SerializeToString())
    assert "outside its folder" in onnx_file.read(str(path))["notes"][0]


def test_operators_in_branches_are_counted_apart(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    def branch(kind: str) -> object:
        out = helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)
        inputs = ["x", "x"] if kind == "MatMul" else ["x"]
        return helper.make_graph([helper.make_node(kind, inputs, [kind])], kind, [], [out])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("MatMul"), else_branch=branch("Tanh"))
    ends = [helper.make_tensor_value_info(*a) for a in (("c", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [4, 4]))]
    graph = helper.make_graph([node], "g", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    path = tmp_path / "if.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    found = onnx_file.read(str(path))
    assert found["ops"] == {"If": 1} and found["nested_ops"] == {"MatMul": 1, "Tanh": 1}
    assert found["macs"] is None and found["macs_not_counted"] == {"MatMul": 1}


def test_half_weights_in_an_ir_are_called_what_they_are(tiny_onnx, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    path = tmp_path / "half.xml"
    ov.save_model(ov.convert_model(str(tiny_onnx(tmp_path / "a.onnx"))), str(path), compress_to_fp16=True)
    found = ir_file.read(str(path))
    assert found["precision"] == "fp16 weights" and found["macs"] == 64
    assert found["parameters"]["by_dtype"]["float16"] == {"count": 64, "size_bytes": 128}
    path.with_suffix(".bin").unlink()
    assert ir_file.read(str(path))["notes"] == ["its weights half.bin are missing"]


def test_a_cut_tflite_file_is_always_one_clear_error(bundles: Path, tmp_path: Path) -> None:
    data = (bundles / "tflite-fp32" / "model.tflite").read_bytes()
    cut = tmp_path / "cut.tflite"
    for size in range(8, len(data) - 64, len(data) // 40):
        cut.write_bytes(data[:size])
        with pytest.raises(UsageError, match="not a whole TFLite file"):
            contents(cut)
    with pytest.raises(UsageError, match="not a whole TFLite file"):
        inspect(cut)


def test_a_vector_that_ends_beyond_the_file_is_seen() -> None:
    # A root, a vtable of one field, a table, a vector of 100 bytes of which 10 are there.
    data = struct.pack("<IHHHHiII", 12, 6, 8, 4, 0, 8, 4, 100) + bytes(10)
    with pytest.raises(Broken, match="the file ends at byte 34, 124 are needed"):
        root(data).length(0)
    assert root(data + bytes(90)).length(0) == 100


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("foreign.tflite", b"PK\3\4" + bytes(40), "not a TFLite file"),
        ("foreign.onnx", b"<html>" * 9, "not"),
        ("empty.onnx", b"", "the file is empty"),
        ("cut.xml", b"<?xml version='1.0'?><net name='a' version='11'><layers>", "not a whole XML file"),
        ("page.xml", b"<html><body/></html>", "its root is <html>"),
        ("bomb.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><net><layers/></net>", "XML entities"),
        ("odd.xml", b"<net><layers><layer id='0'/></layers></net>", "no IR that we know"),
        (
            "worse.xml",
            b"<net><layers><layer id='0' type='Const' name='a'><data offset='x'/></layer></layers></net>",
            "it can't be read as .xml: ValueError",
        ),
        ("notes.txt", b"hello", "a file .txt"),
    ],
)
def test_a_foreign_or_cut_file_is_one_clear_error(name: str, data: bytes, word: str, tmp_path: Path, main) -> None:
    (tmp_path / name).write_bytes(data)
    main("inspect", tmp_path / name).fails(2, word)


def test_a_cut_onnx_is_one_clear_error(onnx_file: Path, main) -> None:
    onnx_file.write_bytes(onnx_file.read_bytes()[:200])
    main("inspect", onnx_file).fails(2, "not a whole ONNX file")


def test_a_pt2_is_named_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"PK\3\4 whatever")
    found = inspect(path)
    assert found["kind"] == "pt2" and found["parameters"] is None and "unpickles" in found["notes"][0]


def test_a_folder_that_is_no_bundle_says_what_lies_in_it(bundles: Path, main) -> None:
    main("inspect", bundles).fails(2, "a folder without manifest.json", "tflite-int8")


def test_the_names_are_those_of_the_installed_schema() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    theirs = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    assert [theirs[code] for code in range(len(OPERATORS))] == OPERATORS
    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    assert [types[code] for code in range(len(TYPES))] == TYPES


def test_tflite_and_ir_are_read_without_any_runtime(bundles: Path) -> None:
    code = (
        "import sys\nfrom seatrial.exporter.inspect import ir_file, tflite_file\n"
        "print(tflite_file.read(sys.argv[1])['macs'], ir_file.read(sys.argv[2])['macs'])\n"
        "print({'numpy', 'ai_edge_litert', 'openvino', 'flatbuffers'} & set(sys.modules))"
    )
    files = [bundles / "tflite-fp32" / "model.tflite", bundles / "openvino-fp32" / "model.xml"]
    done = subprocess.run([sys.executable, "-P", "-c", code, *map(str, files)], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == [f"{MACS} {MACS}", "set()"], done.stderr
