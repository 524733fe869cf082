"""Reading ``.keras`` and ``.h5`` files: old keys, custom objects, and errors that say what to do."""

from __future__ import annotations

import inspect
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported, UsageError
from . import user
from .job import Job

# Keys that Keras 2 wrote for layers whose Keras-3 form has no such parameter, with the values that change nothing.
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "groups": (1,),  # depthwise, separable and transposed convolutions
    "time_major": (False,),  # recurrent layers
    "implementation": None,
    "virtual_batch_size": (None,),  # BatchNormalization
    "fused": None,
    "causal": (False,),  # Attention
    "softmax_robust_masking": (False,),
    "query_shape": None,  # MultiHeadAttention builds itself when it is called
    "key_shape": None,
    "value_shape": None,
    "kernel_initializer": None,  # SeparableConv2D has one for each of its two kernels
    "kernel_regularizer": None,
    "kernel_constraint": None,
}


def load(job: Job) -> Any:
    """The Keras model of a file, never by running code that stands in the file.

    Raises:
        UsageError: truncated, weights alone, or a class that isn't known.
        Unsupported: a ``Lambda``, raw TensorFlow operators, or a ``.keras`` file of Keras 2.
    """
    import keras

    path = Path(job.path)
    _check_whole(job, path)
    known = custom(job)
    old = _readers() if path.suffix != ".keras" else {}
    try:
        with keras.saving.custom_object_scope({**old, **known}):
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise _failure(job, error, known) from error


def _check_whole(job: Job, path: Path) -> None:
    todo = "check the file's size, and download or save it again"
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json")).get("keras_version", "")
        except Exception as error:
            raise UsageError(job.asked, f"it is not a whole Keras file: {error}", todo) from error
        if version.startswith("2."):
            found = f"a .keras file of Keras {version}, which Keras 3 can't read"
            wanted = "save it there as .h5 (model.save('model.h5')) or as a SavedModel, and export that"
            raise Unsupported(job.asked, found, wanted)
        return
    import h5py

    try:
        with h5py.File(path) as file:
            whole = "model_config" in file.attrs
    except Exception as error:
        raise UsageError(job.asked, f"it is not a whole HDF5 file: {error}", todo) from error
    if not whole:
        wanted = "write a model.py whose get_model() builds the model and calls load_weights(), and export that"
        raise UsageError(job.asked, "it holds weights alone, or no Keras model", wanted)


def custom(job: Job) -> dict[str, Any]:
    """The user's own classes and functions, from ``--arg custom=FILE.py``."""
    if "custom" not in job.args:
        return {}
    path = job.args["custom"]
    if not Path(path).is_file():
        raise UsageError(f"--arg custom={path}", "no such file", "give a .py that defines the model's own classes")
    return defined(user.load(Path(path)), path)


def defined(module: Any, path: str) -> dict[str, Any]:
    """What ``get_custom_objects()`` of a user's module gives, by name; without it all classes and functions in it."""
    if hasattr(module, "get_custom_objects"):
        found = user.call(path, "get_custom_objects", module.get_custom_objects)
        if not isinstance(found, Mapping):
            wrong = f"it returns {type(found).__qualname__}"
            raise UsageError(f"get_custom_objects() of {path}", wrong, "return a dict: name → class or function")
        return dict(found)
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == user.USER_MODULE}
    return {n: v for n, v in own.items() if inspect.isclass(v) or inspect.isfunction(v)}


def _readers() -> dict[str, Any]:
    """Stand for the layers' classes while an ``.h5`` is read: each makes its very layer, without the old keys."""
    import keras

    layers: dict[str, Any] = {
        n: v for n, v in vars(keras.layers).items() if inspect.isclass(v) and issubclass(v, keras.Layer)
    }
    takes = {name: set(inspect.signature(cls.__init__).parameters) for name, cls in layers.items()}

    def reader(name: str) -> Any:
        class Reader:
            @classmethod
            def from_config(cls, config: Mapping[str, Any]) -> Any:
                return layers[name].from_config(mended(name, config, takes))

        return Reader

    return {name: reader(name) for name in layers if name not in ("Layer", "Lambda")}


def mended(layer: str, config: Mapping[str, Any], takes: Mapping[str, set[str]]) -> dict[str, Any]:
    """A Keras-2 layer's config, and those of the layers inside it, without what means nothing to Keras 3.

    Args:
        layer: the layer's class.
        config: as the file has it.
        takes: parameters of each class.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        neutral = NEUTRAL.get(key, ())
        if key in takes[layer] or not (neutral is None or value in neutral):
            kept[key] = value
        if isinstance(value, Mapping) and value.get("class_name") in takes:
            kept[key] = {**value, "config": mended(value["class_name"], value["config"], takes)}
    dtype = kept.get("dtype")
    if isinstance(dtype, Mapping) and dtype.get("class_name") == "Policy":
        kept["dtype"] = dtype["config"]["name"]
    return kept


def _failure(job: Job, error: Exception, known: Mapping[str, Any]) -> Exception:
    text = str(error)
    if "`Lambda` layer" in text:
        found = "it holds a Lambda layer: code inside the file, which is not run"
        todo = "write a model.py whose get_model() builds the model and calls load_weights(), and export that"
        return Unsupported(job.asked, found, todo)
    unknown = re.search(r"(?:Could not locate (?:class|function)|Unknown (?:\w+):) '([^']+)'", text)
    if unknown and unknown[1] in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        found = "it holds raw TensorFlow operators, which Keras 3 can't read from a Keras-2 file"
        return Unsupported(job.asked, found, "save it as a SavedModel where it was made, and export that")
    if unknown:
        name = unknown[1].rpartition(">")[2]
        found = f"it needs the class or function {name}, which Keras doesn't have"
        if "custom" in job.args:
            found += f"; {job.args['custom']} defines {', '.join(known) or 'nothing'}"
        return UsageError(job.asked, found, f"give the .py that defines {name}: --arg custom=FILE.py")
    own = user.own_frames(job.args["custom"], error) if "custom" in job.args else []
    if own:
        return user.user_error(job.args["custom"], "its classes can't be made from the file", error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    found = f"Keras can't read it: {lines[-1].removeprefix('Exception encountered: ')[:300]}"
    todo = "save it as a SavedModel where it was made, or rebuild it in a model.py with get_model(), and export that"
    return Unsupported(job.asked, found, todo)
