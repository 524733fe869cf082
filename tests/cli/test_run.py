"""`run`, `verify` and `init`: a runtime that refuses, a batch of several, a checkpoint in another folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core.bundle import MANIFEST, SEAL, seal
from seatrial.core.ids import file_sha256
from seatrial.exporter.pack import TEMPLATES
from seatrial.exporter.run import load


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A bundle to be changed, with an input that fits."""
    np.savez(tmp_path / "x.npz", x=np.ones((1, 8), np.float32))
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def vouch(bundle: Path, **changes: Any) -> None:
    """Change the manifest, and make all hashes right again."""
    manifest = json.loads((bundle / MANIFEST).read_text()) | changes
    for path in bundle.rglob("*"):
        name = str(path.relative_to(bundle))
        if path.is_file() and name not in (MANIFEST, SEAL):
            manifest["files"][name] = {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    (bundle / SEAL).write_text(seal(bundle / MANIFEST))


def test_a_runtime_that_can_not_open_a_bundle_is_named_with_both_versions(main: Any, bundle: Path) -> None:
    import onnxruntime

    (bundle / "model.onnx").write_bytes(b"from the future")
    tools = json.loads((bundle / MANIFEST).read_text())["tools"] | {"onnxruntime": "99.1.0"}
    vouch(bundle, tools=tools)
    words = ("onnxruntime 99.1.0", f"here is {onnxruntime.__version__}", "install onnxruntime 99.1.0, or export")
    main("verify", bundle).fails(5, *words)
    main("run", bundle, bundle.parent / "x.npz").fails(5, *words)


def test_a_runtime_that_fails_while_it_runs_is_named_too(main: Any, bundle: Path) -> None:
    import onnx

    model = onnx.load(str(bundle / "model.onnx"))
    model.graph.input[0].name = model.graph.node[0].input[0] = "z"
    onnx.save(model, str(bundle / "model.onnx"))
    vouch(bundle)
    main("run", bundle, bundle.parent / "x.npz").fails(5, "can't run it", "export it again")
    main("verify", bundle).fails(5, "can't run it")


def classifier_of_three(bundle: Path) -> None:
    """The tiny model as a classifier that answers three samples at once: one is an ant, one a bee, one a cat."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scores = np.full((3, 8), -9, np.float32)
    scores[range(3), range(3)] = 9
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 8]), ("y", [3, 8]))]
    weights = [numpy_helper.from_array(scores, "w"), numpy_helper.from_array(np.zeros((1, 8), np.float32), "zero")]
    nodes = [helper.make_node("Mul", ["x", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "w"], ["y"])]
    graph = helper.make_graph(nodes, "three", ends[:1], ends[1:], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(bundle / "model.onnx")
    )
    (bundle / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\nfox\ngnu\nhen\n")
    vouch(bundle, labels="labels.txt", classes="y")


def test_of_a_batch_the_first_sample_is_shown_and_said_so(main: Any, bundle: Path) -> None:
    classifier_of_three(bundle)
    model = load(bundle)
    top = model.top(model.run({"x": np.ones((1, 8), np.float32)}))
    assert top[0][0] == "ant" and top[0][1] > 0.99
    done = main("run", bundle, bundle.parent / "x.npz")
    assert done.code == 0, done.err
    assert "the first of 3 samples:" in done.out and "ant" in done.out


def test_the_example_of_a_bundle_shows_the_first_of_a_batch(bundle: Path) -> None:
    from seatrial.targets import get

    classifier_of_three(bundle)
    text = (TEMPLATES / "example.py.txt").read_text()
    opener = get("onnxruntime").example({"threads": 1, "optimization": "all"})
    (bundle / "example.py").write_text(text.replace("# OPEN_MODEL\n", opener.strip() + "\n"))
    done = subprocess.run([sys.executable, "-P", "example.py"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the first of 3 samples:" in done.stdout
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 5 and rows[0].split() == ["9.000", "ant"]


def test_init_finds_the_checkpoint_from_wherever_it_is_called(cli: Any, tmp_path: Path, needs: Any) -> None:
    needs("torch")
    (tmp_path / "weights").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "weights/my.pt").touch()
    done = cli("init", "--checkpoint", "weights/my.pt", "-o", "code/model.py", cwd=tmp_path)
    assert done.code == 0, done.err
    assert str(tmp_path) not in (tmp_path / "code/model.py").read_text(), "the folder may move as a whole"
    spec = importlib.util.spec_from_file_location("written_by_init", tmp_path / "code/model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (found,) = module.get_model.__defaults__
    assert Path(found).resolve() == tmp_path / "weights/my.pt"
