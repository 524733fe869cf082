"""Bad input as a user meets it: one clear error, its exit code, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")


@pytest.fixture
def here(tmp_path: Path, tiny_onnx: Callable[..., Path]) -> Path:
    """A working folder with a good model."""
    tiny_onnx(tmp_path / "good.onnx")
    return tmp_path


@pytest.fixture
def export(cli, here: Path):
    """`export("good.onnx", ...)` there, and a look that a failure left no output and no half-written one."""

    def run(*args: object, **options):
        before = set(here.rglob("*"))
        done = cli("export", *args, *([] if "-o" in args else ["-o", "out"]), cwd=here, **options)
        if done.code:
            assert set(here.rglob("*")) == before
        return done

    return run


# The model's file


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.onnx", None, ["none.onnx", "no such file"]),
        ("none.py", None, ["none.py", "no such file"]),
        ("model.txt", b"x", ["a file .txt", ".py, .onnx"]),
        ("model", b"x", ["a file without a suffix", ".py, .onnx"]),
        ("empty.onnx", b"", ["the file is empty"]),
        ("empty.py", b"", ["the file is empty"]),
        ("text.onnx", b"not a model\n" * 9, ["not a whole ONNX file"]),
        ("zeros.onnx", bytes(100), ["ONNX"]),
    ],
)
def test_a_missing_or_foreign_file_is_named(export, here: Path, name: str, content: bytes | None, words: list[str]):
    if content is not None:
        (here / name).write_bytes(content)
    export(name).fails(2, f"the model {name}", *words)


def test_a_folder_is_no_model(export, here: Path):
    (here / "folder.onnx").mkdir()
    export("folder.onnx").fails(2, "a folder")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("there", [True, False])
def test_a_bare_checkpoint_is_explained_and_init_suggested(export, here: Path, suffix: str, there: bool):
    name = f"weights{suffix}"
    if there:
        (here / name).write_bytes(b"PK")
    export(name).fails(2, "weights without the code", f"seatrial init --checkpoint {name}")


def test_a_truncated_model_is_named_wherever_it_was_cut(export, here: Path):
    whole = (here / "good.onnx").read_bytes()
    (here / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    export("cut.onnx").fails(2, "the model cut.onnx", "not a whole ONNX file", "download or export it again")


def test_every_cut_is_a_usage_error_or_named_as_unsupported(here: Path):
    from seatrial.core.errors import Unsupported, UsageError
    from seatrial.exporter.sources import onnx_file

    whole = (here / "good.onnx").read_bytes()
    for end in range(1, len(whole)):
        (here / "cut.onnx").write_bytes(whole[:end])
        (here / "program").mkdir(exist_ok=True)
        with pytest.raises((UsageError, Unsupported), match=r"cut\.onnx"):
            onnx_file.capture(str(here / "cut.onnx"), str(here / "program"), {}, None, {}, {})


# External data


def external(path: Path, location: str, *, where: str = "initializer") -> Path:
    """A model whose weights lie at `location`: as an initializer, in a constant, or inside a branch."""
    from onnx import TensorProto, helper

    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 8])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    if where == "initializer":
        graph = helper.make_graph([product], "g", ends[:1], ends[1:], [weights])
    elif where == "constant":
        constant = helper.make_node("Constant", [], ["w"], value=weights)
        graph = helper.make_graph([constant, product], "g", ends[:1], ends[1:])
    else:
        inner = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8])
        matmul = helper.make_node("MatMul", ["x", "w"], ["z"])
        same = helper.make_node("Identity", ["x"], ["z"])
        then = helper.make_graph([matmul], "then", [], [inner], [weights])
        other = helper.make_graph([same], "else", [], [inner])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        choice = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
        graph = helper.make_graph([choice], "g", ends[:1], ends[1:], [yes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def weights_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32).tobytes())
    return path


def test_external_data_beside_the_model_are_read(export, here: Path):
    weights_file(here / "sub/w.bin")
    external(here / "model.onnx", "sub/w.bin")
    done = export("model.onnx")
    assert done.code == 0, done.err


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("kind", ["absolute", "dots", "link", "folder link", "missing"])
def test_external_data_outside_the_models_folder_are_refused(here: Path, kind: str, where: str):
    from seatrial.core.errors import UsageError
    from seatrial.exporter.sources import onnx_file

    model, word = place_external(here, kind, where)
    with pytest.raises(UsageError) as caught:
        onnx_file.load(model)
    assert word in caught.value.found


@pytest.mark.parametrize("kind", ["absolute", "dots", "link"])
def test_the_command_refuses_external_data_outside_the_models_folder(export, here: Path, kind: str):
    model, word = place_external(here, kind, "branch")
    export(model.relative_to(here)).fails(2, "external data", word, "the model's own folder")


def place_external(here: Path, kind: str, where: str) -> tuple[Path, str]:
    secret = weights_file(here / "elsewhere/w.bin")
    folder = here / "model"
    folder.mkdir()
    location = {"absolute": str(secret), "dots": "sub/../../elsewhere/w.bin", "folder link": "sub/w.bin"}.get(kind, "w")
    if kind == "dots":
        (folder / "sub").mkdir()
    if kind == "link":
        (folder / "w").symlink_to(secret)
    if kind == "folder link":
        (folder / "sub").symlink_to(secret.parent)
    word = {"absolute": "outside", "dots": "outside", "missing": "are missing"}.get(kind, "are a link")
    return external(folder / "model.onnx", location, where=where), word


# A user's .py

HEAD = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(x)


def get_args():
    return (torch.ones(1, 8),)

"""
GOOD = HEAD + "\ndef get_model():\n    return Net().eval()\n"

BAD_MODELS = {
    "get_model missing": (HEAD, 2, ["get_model() of", "there is none: it defines get_args", "seatrial init"]),
    "get_args missing": ("def get_model(): ...\n", 2, ["get_model() of", "returns", "torch.nn.Module"]),
    "get_model raising": (
        HEAD + "\ndef get_model():\n    return Net().load_weights('best.pt')  # mine\n",
        5,
        ["get_model() raises an error: AttributeError", "load_weights('best.pt')  # mine", "model.py:19 in get_model"],
    ),
    "get_args raising": (
        GOOD + "\ndef get_args():\n    return 1 / 0\n",
        5,
        ["get_args() raises an error: ZeroDivisionError", "return 1 / 0"],
    ),
    "loading raises": (HEAD + "import not_there_at_all\n", 5, ["not_there_at_all", "model.py:17"]),
    "syntax": (HEAD + "def get_model(:\n", 5, ["SyntaxError", "model.py:17: def get_model(:"]),
    "null bytes": ("\0\0\0", 5, ["raises an error when it is loaded"]),
    "leaves": (HEAD + "raise SystemExit('no GPU')\n", 5, ["SystemExit: no GPU", "model.py:17"]),
    "get_model returns no module": (HEAD + "def get_model():\n    return {}\n", 2, ["returns builtins.dict"]),
    "needs an argument": (
        HEAD + "def get_model(weights):\n    return Net().eval()\n",
        2,
        ["get_model() needs weights", "--arg weights="],
    ),
    "args of another shape": (
        GOOD.replace("torch.ones(1, 8)", "torch.ones(1, 9)"),
        5,
        ["can't take what get_args() gives (float32[1, 9])", "return self.fc(x)", "in forward"],
    ),
    "args too many": (GOOD.replace("(1, 8),)", "(1, 8), torch.ones(1))"), 5, ["can't take what get_args() gives"]),
    "args no tensor": (GOOD.replace("torch.ones(1, 8)", "3"), 2, ["x is int, not a tensor"]),
    "args no sequence": (GOOD.replace("(torch.ones(1, 8),)", "None"), 2, ["get_args() of", "returns NoneType"]),
    "branch on data": (
        GOOD.replace("return self.fc(x)", "if x.sum() > 0:  # mine\n            x = -x\n        return self.fc(x)"),
        5,
        ["depends on the data", "if x.sum() > 0:  # mine", "model.py:11", "torch.where"],
    ),
    "train mode": (GOOD.replace(".eval()", ""), 2, ["train mode", "model.eval()"]),
    "a part in train mode": (GOOD.replace("Net().eval()", "train_a_part(Net().eval())") + (
        "\ndef train_a_part(model):\n    model.fc.train()\n    return model\n"), 2, ["fc is in train mode"]),
    "random outputs": (
        GOOD.replace("self.fc(x)", "self.fc(x) + torch.rand(1)"),
        2,
        ["two runs over the same input", "different 'output'", "remove the randomness"],
    ),
    "state between runs": (
        GOOD.replace("return self.fc(x)", "self.n = getattr(self, 'n', 0) + 1\n        return self.fc(x) * self.n"),
        2,
        ["two runs over the same input"],
    ),
    "not a tensor out": (GOOD.replace("self.fc(x)", "self.fc(x), 'text'"), 2, ["output_1 is not a tensor"]),
    "get_model leaves": (HEAD + "def get_model():\n    exit(3)\n", 5, ["get_model() raises an error: SystemExit: 3"]),
    "unknown preprocess key": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 8, 'menas': [0, 0, 0]}\n",
        2,
        ["get_preprocess() of", "unknown key 'menas'", "did you mean 'mean'", "interpolation, layout"],
    ),
    "wrong preprocess value": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 8, 'layout': 'CHW'}\n",
        2,
        ["layout='CHW'", "NCHW, NHWC"],
    ),
    "preprocess without size": (GOOD + "\ndef get_preprocess():\n    return {'crop': 'none'}\n", 2, ["missing key"]),
    "preprocess of a wrong type": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 'large', 'mean': 0.5}\n",
        2,
        ["get_preprocess() of", "size='large'"],
    ),
    "labels as text": (GOOD + "\ndef get_labels():\n    return 'cat,dog'\n", 2, ["get_labels() of", "returns str"]),
}  # fmt: skip

DRIVER = """
from pathlib import Path

from seatrial.core.errors import SeatrialError
from seatrial.exporter.sources.torch_file import capture


def all_of(folder):
    found = {}
    for model in sorted(Path(folder).glob("*/model.py")):
        (model.parent / "program").mkdir()
        try:
            capture(str(model), {}, str(model.parent / "program"), {})
            found[model.parent.name] = None
        except SeatrialError as error:
            found[model.parent.name] = {"text": str(error), "code": error.exit_code}
        except BaseException as error:
            found[model.parent.name] = {"text": f"not an error of ours: {error!r}", "code": -1}
    return found
"""


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object] | None]:
    """What the capture says of each bad model: all in one process, because torch takes seconds to load."""
    pytest.importorskip("torch")
    from seatrial.core import process

    folder = tmp_path_factory.mktemp("models")
    for name, (text, _, _) in BAD_MODELS.items():
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(text)
    (folder / "driver.py").write_text(DRIVER)
    env = {"PYTHONPATH": str(folder)}
    limits = process.Limits(120)
    return process.call(
        "driver:all_of", {"folder": str(folder)}, workdir=folder / "w", limits=limits, label="all", env=env
    )


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_one_clear_error_with_the_users_own_line(captured, name: str):
    _, code, words = BAD_MODELS[name]
    found = captured[name]
    assert found is not None, "it was taken"
    for word in words:
        assert word in found["text"], found["text"]
    assert found["code"] == code
    assert "\n  to do: " in found["text"]
