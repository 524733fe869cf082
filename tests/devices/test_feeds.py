"""Inputs that are made up, and grids of arms, on real models with free sizes and integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from seatrial.core import samples
from seatrial.core.errors import UsageError
from seatrial.core.specs import TensorSpec
from seatrial.devices import feeds
from seatrial.devices.arms import Arm, arms_from_paths
from seatrial.devices.feeds import Wishes
from seatrial.devices.grid import Grid

IDS = TensorSpec("ids", "int64", ("batch", "length"))
PIXELS = TensorSpec("pixels", "uint8", (1, 4))


def write_text_model(path: Path, batch: str | int = "batch") -> Path:
    """Numbers of words to means of their vectors; batch and length are free."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    words = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["y"], axes=[1], keepdims=0),
    ]
    ends = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [batch, "length"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 8]),
    ]
    graph = helper.make_graph(nodes, "text", ends[:1], ends[1:], [numpy_helper.from_array(words, "words")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def fed(arm: Arm) -> dict[str, np.ndarray]:
    return samples.load(arm.inputs)[0]


def test_sizes_and_ranges_are_as_wished():
    made = feeds.feed([IDS, PIXELS], Wishes({"ids": (2, 5)}, {"ids": (10, 12)}, seed=1), None, "m")
    assert made["ids"].shape == (2, 5)
    assert made["ids"].dtype == np.int64
    assert set(made["ids"].ravel()) == {10, 11}
    assert made["pixels"].shape == (1, 4)  # all that a pixel may be, without being asked
    batch = feeds.feed([IDS], Wishes({"ids": (2, 5)}, {"ids": (10, 12)}), 7, "m")
    assert batch["ids"].shape == (7, 5)


@pytest.mark.parametrize(
    ("wishes", "word"),
    [
        (Wishes(), "--shape ids=1,1"),
        (Wishes({"ids": (1, 5)}), "--range ids="),
        (Wishes({"ids": (1, 5, 2)}), "3 sizes for an input of 2 axes|the model wants ids"),
        (Wishes({"other": (1, 5)}), "--shape is given for other"),
    ],
)
def test_what_is_not_known_is_asked_for(wishes, word):
    with pytest.raises(UsageError, match=word):
        feeds.feed([IDS], wishes, None, "m")


def test_a_file_of_inputs_must_have_the_models_names_and_types(tmp_path):
    np.savez(tmp_path / "x.npz", ids=np.arange(6, dtype=np.int32).reshape(2, 3))
    made = feeds.feed([IDS], Wishes(file=tmp_path / "x.npz"), 3, "m")
    assert made["ids"].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert made["ids"].dtype == np.int64
    with pytest.raises(UsageError, match="needed: ids, pixels"):
        feeds.feed([IDS, PIXELS], Wishes(file=tmp_path / "x.npz"), None, "m")
    np.savez(tmp_path / "y.npz", ids=np.ones((2, 3)))
    with pytest.raises(UsageError, match="ids holds float64"):
        feeds.feed([IDS], Wishes(file=tmp_path / "y.npz"), None, "m")


def grid(batches: Sequence[int] = (), **more: object) -> Grid:
    return Grid(batches=batches, wishes=Wishes({"ids": (1, 16)}, {"ids": (0, 100)}), **more)  # type: ignore[arg-type]


def test_each_combination_is_an_arm_whose_name_tells_it_apart(tmp_path):
    model = write_text_model(tmp_path / "text.onnx")
    settings = {"graph_optimization": ("all", "basic"), "openvino.inference_precision": ("f32",)}
    arms, failed = arms_from_paths([model], tmp_path, grid((1, 8), threads=(1, 2), streams=(2,), settings=settings))
    assert not failed
    assert len(arms) == 8
    assert arms[0].name == "text.onnx, graph_optimization=all, threads=1, batch=1"
    assert len({arm.name for arm in arms}) == len({arm.same for arm in arms}) == 8
    last = arms[-1]
    assert (last.settings["graph_optimization"], last.settings["threads"], last.batch, last.streams) == (
        "basic",
        2,
        8,
        2,
    )
    assert fed(last)["ids"].shape == (8, 16)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"settings": {"colour": ("red",)}}, "known: threads, graph_optimization"),
        ({"settings": {"openvno.inference_precision": ("f32",)}}, "did you mean openvino"),
        ({"settings": {"threads": (2,)}}, "--threads 1,2"),
        ({"batches": (0,)}, "from 1 up"),
        ({"batches": (8,)}, "fixed.onnx with batch 8"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_anything_is_timed(tmp_path, more, word):
    model = write_text_model(tmp_path / "fixed.onnx", batch=1)
    with pytest.raises(UsageError, match=word):
        arms_from_paths([model, model], tmp_path, grid(**more))


def test_a_name_that_no_model_has_is_refused_with_those_they_have(tmp_path):
    model = write_text_model(tmp_path / "text.onnx")
    wishes = Wishes({"ids": (1, 4), "mask": (1, 4)}, {"ids": (0, 100)})
    with pytest.raises(UsageError, match=r"text\.onnx: ids: int64"):
        arms_from_paths([model], tmp_path, Grid(wishes=wishes))


def test_a_bundle_keeps_its_reference_where_a_golden_sample_has_the_sizes(bundle, tmp_path):
    path = bundle()
    kept, _ = arms_from_paths([path], tmp_path, Grid(batches=(4,)))
    assert kept[0].reference is not None
    assert kept[0].inputs == str(path / "golden/inputs.npz")
    with pytest.raises(UsageError, match="with batch 8"):  # its file says 4
        arms_from_paths([path], tmp_path, Grid(batches=(8,)))
