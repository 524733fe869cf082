"""A ``.tflite`` and an OpenVINO IR as sources: used as they are, held against their own strict run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core import process
from seatrial.core.errors import SeatrialError, Unsupported, UsageError
from seatrial.exporter import as_is
from seatrial.exporter.program import Program
from seatrial.exporter.proof import degenerate, parity
from seatrial.exporter.sizes import bucket, dynamic
from seatrial.exporter.sources import runtime_file
from seatrial.exporter.sources.job import Job
from seatrial.targets import get

Edit = Callable[[Any], None]


def capture(path: Path, folder: Path, **options: Any) -> Program:
    """In this process: what it does is the same, and a test's time is for something else than a start."""
    folder.mkdir()
    assert runtime_file.capture(Job(str(path), path.stem, str(folder), **options).to_dict()) == {"steps": []}
    return Program.load(folder)


def shipped(program: Program) -> list[dict[str, np.ndarray]]:
    """What the program's own file answers under the settings that would ship."""
    target = get(program.kind)
    session = target.open(program.folder / program.model, target.settings(program.precision))
    return [session.run(feed) for feed in program.feeds("main")]


def edited(source: Path, out: Path, edit: Edit) -> Path:
    """A copy of a ``.tflite`` after a change in its object form."""
    flatbuffers = pytest.importorskip("flatbuffers")
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(bytes(builder.Output()))
    return out


@pytest.fixture(scope="module")
def tflite(bundles: Path) -> Path:
    return bundles / "tflite-fp32" / "model.tflite"


@pytest.fixture(scope="module")
def int8(tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with int8 weights, activations, inputs and outputs, as microcontrollers take it."""
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    from ai_edge_quantizer.qtyping import TFLOperationName

    tool = quantizer.Quantizer(str(tflite))
    tool.add_static_config(".*", TFLOperationName("*"), activation_num_bits=8, weight_num_bits=8)
    rng = np.random.default_rng(0)
    feeds = [{"image": rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]
    made = tool.quantize(tool.calibrate({"serving_default": feeds}))
    path = tmp_path_factory.mktemp("int8") / "int8.tflite"
    path.write_bytes(bytes(made.quantized_model))
    return path


def test_a_float_tflite_is_held_against_its_run_without_delegates(tflite: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "log"
    (tmp_path / "program").mkdir()
    job = Job(str(tflite), "classifier", str(tmp_path / "program")).to_dict()
    function = "seatrial.exporter.sources.runtime_file:capture"
    assert process.call(function, {"job": job}, workdir=workdir, label="the model") == {"steps": []}
    program = Program.load(tmp_path / "program")
    assert (program.kind, program.precision, program.quanta) == ("tflite", "fp32", {})
    assert program.reference == "the same file in TFLite without delegates"
    assert (program.folder / "model.tflite").read_bytes() == tflite.read_bytes()
    check = parity.compare("fp32", program.main, program.reference_outputs("main"), shipped(program))
    assert check.ok and check.sqnr_db is not None and check.sqnr_db > 100
    assert degenerate.judge(program.reference_outputs("main")) == ([], [])


def test_an_int8_tflite_keeps_its_integers_and_is_judged_as_the_numbers_they_stand_for(
    int8: Path, tmp_path: Path
) -> None:
    program = capture(int8, tmp_path / "p")
    assert program.precision == "int8" and program.inputs[0].dtype == program.outputs[0].dtype == "int8"
    scale, zero = program.quanta[program.outputs[0].name]
    assert 0 < scale < 1 and -128 <= zero <= 127
    want, have = program.reference_outputs("main"), shipped(program)
    check = as_is.compare(program, program.main, want, have)
    assert check.ok and check.precision == "int8" and (check.sqnr_db or 0) >= as_is.BAR_DB
    # What lies far off is seen: as integers about -128 it would pass.
    wrong = [{name: (a // 2 + int(zero) // 2).astype(np.int8) for name, a in out.items()} for out in have]
    assert not as_is.compare(program, program.main, want, wrong).ok


def test_a_difference_between_10_and_20_db_fails_a_file_against_itself(int8: Path, tmp_path: Path) -> None:
    program = capture(int8, tmp_path / "p")
    want = program.reference_outputs("main")
    real = as_is.real(want, program.quanta)
    name = program.outputs[0].name
    power = np.mean([np.mean(out[name] ** 2) for out in real])
    noise = np.sqrt(power / 10**1.5) / program.quanta[name][0]
    wrong = [{name: np.clip(out[name] + np.sign(i % 2 - 0.5) * noise, -128, 127)} for i, out in enumerate(want)]
    check = as_is.compare(program, program.main, want, [{name: o[name].round().astype(np.int8)} for o in wrong])
    assert [p for p in check.problems if "against its own strict run, needed 20" in p], check


def test_what_was_rounded_cant_be_given_back(int8: Path, tflite: Path, tmp_path: Path) -> None:
    program = capture(int8, tmp_path / "p")
    assert as_is.precisions(program, []) == as_is.precisions(program, ["int8"]) == ("int8",)
    with pytest.raises(Unsupported, match="int8 and is used as it is"):
        as_is.precisions(program, ["fp32"])
    plain = capture(tflite, tmp_path / "q")
    assert as_is.precisions(plain, []) == ("fp32",)
    assert as_is.precisions(plain, ["fp32", "int8"]) == ("fp32", "int8")


def test_a_file_without_a_signature_is_run_by_its_tensors_names(tflite: Path, tmp_path: Path) -> None:
    bare = edited(tflite, tmp_path / "bare.tflite", lambda model: setattr(model, "signatureDefs", []))
    program = capture(bare, tmp_path / "p")
    assert program.inputs[0].name != "image" and program.inputs[0].shape == (1, 3, 16, 16)
    scope: dict[str, Any] = {}
    exec(get("tflite").example(get("tflite").settings("fp32")), scope)
    run = scope["open_model"](program.folder / program.model)
    for feed, want in zip(program.feeds("main"), program.reference_outputs("main"), strict=True):
        np.testing.assert_allclose(run(feed)[program.outputs[0].name], want[program.outputs[0].name], rtol=1e-4)


def _two_signatures(model: Any) -> None:
    import copy

    second = copy.copy(model.signatureDefs[0])
    second.signatureKey = b"train"
    model.signatureDefs.append(second)


def _custom(name: bytes) -> Edit:
    def edit(model: Any) -> None:
        code = model.operatorCodes[0]
        code.builtinCode = code.deprecatedBuiltinCode = 32
        code.customCode = name

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_two_signatures, ["2 signatures: serving_default, train"]),
        (_custom(b"FlexErf"), ["operator FlexErf is one of TensorFlow's own (Flex)", "SELECT_TF_OPS"]),
        (_custom(b"MyOwnOp"), ["operator MyOwnOp is a custom one"]),
    ],
)
def test_what_a_tflite_file_cant_do_here_is_named(edit: Edit, words: list[str], tflite: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as raised:
        capture(edited(tflite, tmp_path / "a.tflite", edit), tmp_path / "p")
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_cut_tflite_is_refused_before_a_runtime_sees_it(tflite: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(tflite.read_bytes()[:3000])
    with pytest.raises(UsageError, match="not a whole TFLite file"):
        capture(cut, tmp_path / "p")


@pytest.fixture(scope="module")
def ir(tiny_onnx: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An IR with a free batch, whose XML tells of its maker's machine."""
    ov = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("ir")
    path = folder / "tiny ü.xml"
    model = ov.convert_model(str(tiny_onnx(folder / "tiny.onnx", free=True)))
    model.set_rt_info("/home/someone/secret/tiny.onnx", ["my_info", "from"])
    model.set_rt_info("8.0", ["runtime_options", "ACTIVATIONS_SCALE_FACTOR"])
    ov.save_model(model, str(path), compress_to_fp16=False)
    assert "secret" in path.read_text() and "conversion_parameters" in path.read_text()
    return path


def test_an_ir_is_copied_without_paths_and_keeps_what_the_runtime_reads(ir: Path, tmp_path: Path) -> None:
    program = capture(ir, tmp_path / "p", free=[dynamic("batch=2:5")])
    assert (program.kind, program.model, program.precision) == ("openvino", "model.xml", "fp32")
    text = (program.folder / "model.xml").read_text()
    assert "secret" not in text and "conversion_parameters" not in text and "ACTIVATIONS_SCALE_FACTOR" in text
    assert (program.folder / "model.bin").read_bytes() == ir.with_suffix(".bin").read_bytes()
    assert program.inputs[0].shape == ("batch", 8) and program.sizes == {"batch": [2, 5]}
    assert {"batch=2", "batch=5"} <= set(program.edges) and program.feeds("main")[0]["x"].shape == (2, 8)
    check = parity.compare("fp32", program.main, program.reference_outputs("main"), shipped(program))
    assert check.ok, check.problems


def test_the_same_ir_elsewhere_is_the_same_source(ir: Path, tmp_path: Path) -> None:
    for file in (ir, ir.with_suffix(".bin")):
        shutil.copyfile(file, tmp_path / f"other{file.suffix}")
    one = capture(ir, tmp_path / "p", shapes={"x": [1, 8]})
    other = capture(tmp_path / "other.xml", tmp_path / "q", shapes={"x": [1, 8]})
    assert one.source_id == other.source_id
    assert (one.folder / "model.xml").read_bytes() == (other.folder / "model.xml").read_bytes()


def _no_weights(path: Path) -> None:
    path.with_suffix(".bin").unlink()


def _cut_weights(path: Path) -> None:
    path.with_suffix(".bin").write_bytes(b"1234")


def _unknown_layer(path: Path) -> None:
    path.write_text(path.read_text().replace('type="Tanh"', 'type="Tahn"'))


@pytest.mark.parametrize(
    ("spoil", "error", "word"),
    [
        (_no_weights, UsageError, "its weights a.bin are missing"),
        (_cut_weights, UsageError, "its weights a.bin are truncated: 4 of 256 bytes"),
        (_unknown_layer, Unsupported, "Tahn"),
    ],
)
def test_a_spoilt_ir_is_one_clear_error(
    spoil: Callable[[Path], None], error: type[SeatrialError], word: str, ir: Path, tmp_path: Path
) -> None:
    for file in (ir, ir.with_suffix(".bin")):
        shutil.copyfile(file, tmp_path / f"a{file.suffix}")
    spoil(tmp_path / "a.xml")
    with pytest.raises(error, match=word):
        capture(tmp_path / "a.xml", tmp_path / "p", shapes={"x": [1, 8]})


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({}, UsageError, "--shape x=1,1"),
        ({"shapes": {"z": [1]}}, UsageError, "no such input"),
        ({"free": [dynamic("x.1=4:8")]}, Unsupported, "the file fixes it to 8"),
        ({"fixed": bucket("batch=2")}, Unsupported, "the file leaves it free"),
        ({"layout": "nhwc", "shapes": {"x": [1, 8]}}, Unsupported, "--io-layout nhwc"),
        ({"args": {"size": "2"}}, UsageError, "no get_model"),
    ],
)
def test_what_cant_be_asked_of_a_file_as_it_is(
    options: dict[str, Any], error: type[SeatrialError], word: str, ir: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=word):
        capture(ir, tmp_path / "p", **options)


def test_real_inputs_are_taken_by_name(tflite: Path, tmp_path: Path) -> None:
    image = np.full((1, 3, 16, 16), 0.5, np.float32)
    np.savez(tmp_path / "in.npz", image=image)
    program = capture(tflite, tmp_path / "p", inputs=str(tmp_path / "in.npz"))
    assert np.array_equal(program.feeds("main")[0]["image"], image)
