"""Runs in one isolated TensorFlow process for all tests of its sources: makes models, captures and converts them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from seatrial.exporter.sizes import bucket, dynamic
from seatrial.exporter.sources import keras_model, python_file
from seatrial.exporter.sources.job import Job

OUTS = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}

OBJECTS = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Scaled(keras.layers.Layer):
    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by = by

    def call(self, inputs):
        return inputs * self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}

@keras.saving.register_keras_serializable(package="mine")
class Small(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return {"y": self.dense(x)}
"""

SUBCLASS = """
import keras

class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.drop = keras.layers.Dropout(0.5)

    def call(self, pair, scale, training=False):
        both = keras.ops.concatenate([pair["left"], pair["right"]], axis=-1)
        return self.drop(self.dense(both), training=training) * scale, (both,)

def get_model():
    return Two()
"""


GATED = """
import keras
import numpy as np
from keras import layers


class Gate(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, x):
        return keras.ops.sigmoid(x * self.scale) * x


def get_model():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    x = layers.ReLU(6.0, name="bend")(layers.BatchNormalization(name="norm")(x))
    x = layers.Lambda(lambda t: t * 2.0, name="twice")(Gate(8, name="gate")(x))
    block = [layers.DepthwiseConv2D(3, padding="same", name="deep"), layers.Conv2D(8, 1, name="point")]
    x = x + keras.Sequential(block, name="block")(x)
    return keras.Model(image, layers.Dense(5, name="out")(layers.GlobalAveragePooling2D(name="pool")(x)))
"""


def run(folder: str, model_folder: str) -> dict[str, Any]:
    """Do every case; answers by name: `{"folder": ...}`, or the error as data."""
    keras_model.prepare()
    warnings.simplefilter("ignore")
    here, made = Path(folder), Path(model_folder)
    _make(made)
    return {name: _done(name, here / name, made, case) for name, case in _cases(made).items()}


def _done(name: str, folder: Path, made: Path, case: dict[str, Any]) -> dict[str, Any]:
    targets, job = case.pop("targets", []), {k: v for k, v in case.items() if k != "how"}
    program = folder / "program"
    for target in OUTS:
        (folder / target).mkdir(parents=True)
    program.mkdir()
    then = [
        {
            "source": "savedmodel",
            "function": f"seatrial.exporter.convert.tf_{target}:convert",
            "args": {
                "source": str(program / "savedmodel"),
                "out": str(folder / target / OUTS[target]),
                "program": str(program / "program.json"),
            },
            "label": target,
            "after": "",
        }
        for target in targets
    ]
    asked = Job(**{"name": name, "folder": str(program), "then": then, **job})
    try:
        answer = case.get("how", _read)(asked)
    except Exception as error:  # one that is not ours fails the tests of its case
        traceback.print_exc()
        return {"error": str(error), "class": type(error).__name__}
    return {"folder": str(folder), "steps": dict(zip(targets, answer["steps"], strict=True))}


def _read(job: Job) -> dict[str, Any]:
    kind = "saved_model" if Path(job.path).is_dir() else "keras_model"
    module = importlib.import_module(f"seatrial.exporter.sources.{kind}")
    answer: dict[str, Any] = module.capture(job.to_dict())
    return answer


def _python(job: Job) -> dict[str, Any]:
    answer: dict[str, Any] = python_file.capture(job.to_dict())
    return answer


def _subclass(job: Job) -> dict[str, Any]:
    from seatrial.exporter.sources import user

    module = user.load(Path(job.path))
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((1, size)).astype(np.float32) for size in (2, 3))
    example = [{"left": left, "right": right}, np.ones((1, 1), np.float32)]
    labels = ["ant", "bee", "cat"]
    return keras_model.capture_model(job, module.get_model(), example, labels, None, ["x"], [example, example])


def _cases(made: Path) -> dict[str, dict[str, Any]]:
    def at(name: str) -> dict[str, Any]:
        return {"path": str(made / name)}

    first = {"layout": "nchw", "free": [dynamic("picture.2=8:16")], "args": {"preprocess": str(made / "last.json")}}
    pixels = {"embed": True, "args": first["args"], "shapes": {"picture": [1, 8, 8, 3]}}
    ids, every = {"ranges": {"ids": [0, 50]}}, list(OUTS)
    return {
        "two": {**at("two.keras"), **ids, "targets": every},
        "again": {**at("two.keras"), **ids, "targets": ["tflite"]},
        "old": {**at("old.h5"), "targets": every},
        "subclass": {**at("subclass.py"), "targets": ["tflite", "onnx"], "how": _subclass},
        "gated": {**at("gated.py"), "layout": "nchw", "targets": ["tflite"], "how": _python},
        "free": {**at("convs.keras"), "free": [dynamic("batch=1:4"), dynamic("picture.1=8:16")], "targets": every},
        "bucket": {**at("convs.keras"), "fixed": bucket("picture.1=12"), "shapes": {"picture": [2, 8, 8, 3]}},
        "exported": {**at("exported"), "targets": ["onnx"]},
        "chosen": {**at("two_signatures"), "args": {"signature": "double"}, "targets": ["tflite"]},
        "erfinv": {**at("erfinv"), "targets": ["tflite", "onnx"]},
        "no range": at("two.keras"),
        "no custom": at("custom.keras"),
        "wrong custom": {**at("custom.keras"), "args": {"custom": str(made / "empty.py")}},
        "lambda": at("lambda.keras"),
        "lambda h5": at("lambda.h5"),
        "signatures": at("two_signatures"),
        "no such signature": {**at("two_signatures"), "args": {"signature": "treble"}},
        "no signature": at("no_signature"),
        "truncated": at("truncated.keras"),
        "truncated h5": at("truncated.h5"),
        "truncated folder": at("truncated"),
        "weights": at("only.weights.h5"),
        "keras 2": at("keras2.keras"),
        "shape": {**at("convs.keras"), "shapes": {"picture": [1, 8, 8, 4]}},
        "no shape": at("convs.keras"),
        "no such input": {**at("convs.keras"), "shapes": {"image": [1, 8, 8, 3]}},
        "inputs": {**at("convs.keras"), "inputs": str(made / "wrong.npz")},
        "argument": {**at("convs.keras"), "args": {"size": "3"}},
        "first": {**at("convs.keras"), **first, "targets": every},
        "pixels": {**at("convs.keras"), **pixels, "targets": every},
        "folder of pixels": {**at("exported_convs"), **pixels, "targets": ["tflite"]},
        "no picture": {**at("two_signatures"), "args": {"signature": "double"}, "layout": "nchw"},
        "no preprocessing": {**at("convs.keras"), "embed": True, "shapes": {"picture": [1, 8, 8, 3]}},
        "wrong preprocessing": {**at("convs.keras"), **pixels, "args": {"preprocess": str(made / "first.json")}},
        "strings": at("strings"),
        # Last: what registers itself stays known to the process.
        "custom": {**at("custom.keras"), "args": {"custom": str(made / "objects.py")}},
        "small": {**at("small.keras"), "args": {"custom": str(made / "objects.py")}, "targets": ["tflite"]},
    }


def _make(folder: Path) -> None:
    import keras
    import tensorflow as tf

    layers = keras.layers
    ids, x = keras.Input((6,), dtype="int32", name="ids"), keras.Input((4,), name="x")
    hidden = layers.LSTM(5, name="memory")(layers.Embedding(50, 8)(ids))
    both = layers.Concatenate()([hidden, x])
    ends = {
        "score": layers.Dense(3, name="head")(both),
        "deep": {"aux": layers.Dense(2, "softmax")(layers.Dense(4, "gelu")(both))},
    }
    two = keras.Model({"x": x, "ids": ids}, ends)
    two.save(folder / "two.keras")
    two.save_weights(folder / "only.weights.h5")
    whole = (folder / "two.keras").read_bytes()
    (folder / "truncated.keras").write_bytes(whole[: len(whole) // 2])

    picture = keras.Input((None, 8, 3), name="picture")
    maps = layers.Conv2D(4, 3, padding="same", activation="silu")(picture)
    maps = layers.Conv2D(4, 3, padding="same", groups=2, name="maps")(maps)
    mean = layers.GlobalAveragePooling2D(name="mean")(maps)
    convs = keras.Model(picture, [mean, maps])
    convs.save(folder / "convs.keras")  # not in the order of their names
    convs.export(folder / "exported_convs", verbose=False)
    numbers = {"size": [8, 8], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    (folder / "last.json").write_text(json.dumps({**numbers, "layout": "NHWC"}))
    (folder / "first.json").write_text(json.dumps({**numbers, "layout": "NCHW"}))
    np.savez(folder / "wrong.npz", picture=np.zeros((1, 8, 8), np.float32))

    _make_old(folder / "old.h5")
    shutil.copy(folder / "old.h5", folder / "truncated.h5")
    os.truncate(folder / "truncated.h5", 3000)
    import zipfile

    with zipfile.ZipFile(folder / "keras2.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))

    (folder / "objects.py").write_text(OBJECTS)
    (folder / "gated.py").write_text(GATED)
    (folder / "subclass.py").write_text(SUBCLASS)
    (folder / "empty.py").write_text("x = 1\n")
    space: dict[str, Any] = {}
    exec(OBJECTS, space)
    keras.Sequential([keras.Input((4,)), space["Scaled"](3.0), layers.Dense(2)]).save(folder / "custom.keras")
    small = space["Small"]()
    small(np.zeros((3, 4), np.float32))
    small.save(folder / "small.keras")
    keras.saving.get_custom_objects().clear()
    with_lambda = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x + 1)])
    with_lambda.save(folder / "lambda.keras")
    with_lambda.save(folder / "lambda.h5")

    one = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(2, name="last")])
    one.export(folder / "exported", verbose=False)
    module = tf.Module()
    size4 = [tf.TensorSpec([None, 4], tf.float32, name="x")]
    plain = tf.function(lambda x: {"y": x + 1.0}, input_signature=size4)
    double = tf.function(lambda x: {"twice": 2.0 * tf.tanh(x)}, input_signature=size4)
    both_ways = {"serving_default": plain, "double": double}
    tf.saved_model.save(module, str(folder / "two_signatures"), signatures=both_ways)
    tf.saved_model.save(module, str(folder / "no_signature"))
    erfinv = tf.function(lambda x: {"y": tf.math.erfinv(tf.tanh(x, name="head/in"), name="head/erfinv")})
    tf.saved_model.save(module, str(folder / "erfinv"), signatures=erfinv.get_concrete_function(*size4))
    words = tf.function(lambda x: {"y": tf.strings.length(x)}, input_signature=[tf.TensorSpec([1], tf.string, "x")])
    tf.saved_model.save(module, str(folder / "strings"), signatures=words)
    (folder / "truncated").mkdir()
    (folder / "truncated" / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff")


def _make_old(path: Path) -> None:
    """What Keras 2.4 wrote: no modules, ``batch_input_shape``, and keys that Keras 3 refuses."""
    import h5py
    import keras

    layers = keras.layers
    keras.Sequential(
        [
            keras.Input((8, 8, 3), name="photo"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 3),
            layers.Conv2DTranspose(3, 2, strides=2),
            layers.Reshape((12, 36)),
            layers.Bidirectional(layers.GRU(3)),
            layers.Dense(2),
        ]
    ).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        names = [(layer["class_name"], layer["config"]) for layer in config["config"]["layers"]]
        old = [{"class_name": name, "config": _old(name, parts)} for name, parts in names]
        whole = {"class_name": "Sequential", "config": {"name": "old", "layers": old}}
        file.attrs["model_config"] = json.dumps(whole)
        file.attrs["keras_version"] = "2.4.0"


def _old(name: str, config: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and "class_name" in value:
            kept[key] = {"class_name": value["class_name"], "config": _old(value["class_name"], value["config"])}
        else:
            kept[key] = value
    if name == "InputLayer":
        kept["batch_input_shape"] = kept.pop("batch_shape")
    if isinstance(kept.get("dtype"), dict):
        kept["dtype"] = "float32"
    if name in ("DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"):
        kept["groups"] = 1
    if name == "GRU":
        kept.update(time_major=False, implementation=2)
    if name == "Bidirectional":
        kept.pop("backward_layer", None)
    return kept
