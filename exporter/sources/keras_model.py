"""A Keras model as a source: from a ``.keras`` or ``.h5`` file, or an object that a user's ``.py`` made."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.ids import file_sha256
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ..images import Preprocess
from . import keras_file, tf_graph, user
from .boundary import Boundary, declared
from .job import Job

REFERENCE = "Keras, fp32, one thread"
FILE = "model.keras"
HOW = "model.json"


def prepare() -> None:
    """See `tf_graph.prepare`; random weights are the same each time."""
    tf_graph.prepare()
    import keras

    keras.utils.set_random_seed(0)


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Program of a ``.keras`` or ``.h5`` file."""
    asked = Job.from_dict(job)
    tf_graph.check_args(asked, ["custom", "preprocess"])
    prepare()
    model, preprocess = keras_file.load(asked), declared(asked)
    return capture_model(asked, model, preprocess=preprocess, id_parts=[file_sha256(asked.path)])


def capture_model(
    job: Job,
    model: Any,
    example: Any = None,
    labels: list[str] | None = None,
    preprocess: Preprocess | None = None,
    id_parts: Sequence[Any] = (),
    calibration: Any = None,
) -> dict[str, Any]:
    """Make a Program of a Keras model, and leave it beside that where Keras can save it, for `reopen`.

    Args:
        job: what is asked.
        model: a ``keras.Model`` or ``keras.Layer`` on the TensorFlow backend.
        example: inputs by name, or a sequence in the model's order; without any, they are made up.
        labels: class names, of a declared classifier.
        preprocess: how pictures become inputs.
        id_parts: what the source's id is made of, besides the weights.
        calibration: samples for int8, each as `example`.

    Raises:
        UsageError: the model has no known inputs, or runs on another backend.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        found = f"Keras runs on {keras.backend.backend()}"
        raise UsageError(job.asked, found, "take the line away that sets KERAS_BACKEND, or choose tensorflow")
    ends = Ends.make(job, model, example)
    edge = Boundary.make(job, preprocess, ends.inputs, own="nhwc")
    samples = None if calibration is None else [ends.feed(job, sample, "get_calibration()") for sample in calibration]
    given = tf_graph.Given(
        call=ends.call,
        inputs=ends.inputs,
        reference=REFERENCE,
        id_parts=list(id_parts),
        example=None if example is None else ends.feed(job, example, "get_args()"),
        labels=labels,
        edge=edge,
        calibration=samples,
        variables=[variable.value for variable in model.variables],
        tools={"keras": keras.__version__},
    )
    answer = tf_graph.capture(job, given)
    _save(job, ends, edge)
    return answer


def _save(job: Job, ends: Ends, edge: Boundary) -> None:
    """Leave the model for whoever looks for the layer that broke; what Keras can't save goes without."""
    folder = Path(job.folder)
    how = {
        "job": replace(job, then=[]).to_dict(),
        "structure": ends.structure,
        "inputs": [spec.to_dict() for spec in ends.inputs],
        "keywords": ends.keywords,
        "edge": edge.to_dict(),
    }
    try:
        ends.model.save(folder / FILE)
    except Exception as error:
        print(f"no {FILE}: {error}")
        (folder / FILE).unlink(missing_ok=True)
    else:
        (folder / HOW).write_text(json.dumps(how))


def reopen(path: str) -> tuple[Ends, Boundary]:
    """The model that a capture left in this file, and how its Program's boundary differs from its own.

    The user's own classes come from their file, loaded as the capture did.
    """
    import keras

    how = json.loads(Path(path).with_name(HOW).read_text())
    job = Job.from_dict(how["job"])
    own = job.path.endswith(".py")
    known = keras_file.defined(user.load(Path(job.path)), job.path) if own else keras_file.custom(job)
    with keras.saving.custom_object_scope(known):
        # A Lambda in a model that the user's own file made is the user's code.
        model = keras.saving.load_model(path, compile=False, safe_mode=not own)
    specs = [TensorSpec.from_dict(spec) for spec in how["inputs"]]
    return Ends(model, how["structure"], specs, how["keywords"]), Boundary.from_dict(how["edge"])


class Ends:
    """A Keras model with a flat dict of tensors in, and one out.

    Args:
        model: the model.
        structure: its arguments, nested, with names at the leaves.
        inputs: what the leaves are.
    """

    def __init__(self, model: Any, structure: Any, inputs: list[TensorSpec], keywords: bool) -> None:
        self.model, self.structure, self.inputs, self.keywords = model, structure, inputs, keywords

    @classmethod
    def make(cls, job: Job, model: Any, example: Any) -> Ends:
        """From a model, and an example of its inputs where it has one."""
        import keras

        tree = keras.tree
        if getattr(model, "inputs", None):
            # A functional or built sequential model takes one argument, nested as its author wrote it.
            whole = getattr(model, "_inputs_struct", None)
            if whole is None:
                whole = model.inputs[0] if len(model.inputs) == 1 else model.inputs
            leaves = tree.flatten_with_path(whole)
            names = [_named(path, leaf.name) for path, leaf in leaves]
            specs = [
                TensorSpec(n, str(leaf.dtype), tf_graph.axes(n, leaf.shape))
                for n, (_, leaf) in zip(names, leaves, strict=True)
            ]
            return cls(model, [tree.pack_sequence_as(whole, names)], _unique(job, specs), False)
        if example is not None:
            return cls._of_example(job, model, example)
        return cls._of_build(job, model)

    @classmethod
    def _of_example(cls, job: Job, model: Any, example: Any) -> Ends:
        import keras
        import numpy as np

        parameters = _parameters(model)
        keywords = isinstance(example, Mapping) and set(example) <= set(parameters)
        whole = dict(example) if keywords else [example] if isinstance(example, Mapping) else list(example)
        leaves = keras.tree.flatten_with_path(whole)
        names = []
        for path, _ in leaves:
            head, *rest = path
            if isinstance(head, int):
                head = parameters[head] if head < len(parameters) else f"input_{head}"
                head = "" if isinstance(example, Mapping) else head
            names.append(tf_graph.safe(".".join(str(part) for part in (head, *rest) if part != "")))
        arrays = [np.asarray(leaf) for _, leaf in leaves]
        specs = [TensorSpec(n, a.dtype.name, a.shape) for n, a in zip(names, arrays, strict=True)]
        return cls(model, keras.tree.pack_sequence_as(whole, names), _unique(job, specs), keywords)

    @classmethod
    def _of_build(cls, job: Job, model: Any) -> Ends:
        """A subclassed model's file tells the shapes that it was built with, and no types."""
        config = model.get_build_config() or {}
        shapes = config.get("shapes_dict") or {
            _parameters(model)[0]: config.get("input_shape") or getattr(model, "input_shape", None)
        }
        flat = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
        if not all(_is_shape(shape) for shape in flat.values()):
            todo = "write a model.py with get_model() and get_args(), and export that"
            raise UsageError(job.asked, "what goes into this subclassed model is not known", todo)
        dtype = getattr(model, "input_dtype", "float32")
        specs = [
            TensorSpec(tf_graph.safe(n), dtype, tf_graph.axes(tf_graph.safe(n), (None, *shape[1:])))
            for n, shape in flat.items()
        ]
        keywords = len(specs) > 1
        names = [spec.name for spec in specs]
        return cls(model, dict(zip(flat, names, strict=True)) if keywords else names, specs, keywords)

    def call(self, feed: Mapping[str, Any]) -> Mapping[str, Any]:
        """One inference."""
        import keras

        tensors = keras.tree.map_structure(lambda name: feed[name], self.structure)
        takes = "training" in _parameters(self.model) or getattr(self.model, "inputs", None)
        more = {"training": False} if takes else {}
        answers = self.model(**tensors, **more) if self.keywords else self.model(*tensors, **more)
        return self._outputs(answers)

    def _outputs(self, answers: Any) -> dict[str, Any]:
        import keras

        leaves = keras.tree.flatten_with_path(answers)
        if len(leaves) == 1 and not leaves[0][0]:
            return {"output": leaves[0][1]}
        names: list[str] = getattr(self.model, "output_names", None) or []
        if isinstance(answers, list | tuple) and len(names) == len(leaves) == len(set(names)):
            return {tf_graph.safe(name): leaf for name, (_, leaf) in zip(names, leaves, strict=True)}
        return {_named(path, ""): leaf for path, leaf in leaves}

    def feed(self, job: Job, example: Any, function: str) -> Feed:
        """An example as arrays by name."""
        import keras
        import numpy as np

        names = [spec.name for spec in self.inputs]
        if isinstance(example, Mapping) and set(example) == set(names):
            found = [example[name] for name in names]
        else:
            found = keras.tree.flatten(example)
        if len(found) != len(names):
            wrong = f"it gives {len(found)} arrays"
            raise UsageError(f"{function} of {job.path}", wrong, f"the model takes {', '.join(map(str, self.inputs))}")
        return {spec.name: np.asarray(value).astype(spec.dtype) for spec, value in zip(self.inputs, found, strict=True)}


def _named(path: Sequence[Any], own: str) -> str:
    """A leaf's name: the key of a dict with what lies below it, else its own, else ``output_0`` for the first."""
    if own and not any(isinstance(part, str) for part in path):
        return tf_graph.safe(own)
    name = ".".join(map(str, path))
    return f"output_{name}" if name[:1].isdigit() else tf_graph.safe(name)


def _parameters(model: Any) -> list[str]:
    return list(inspect.signature(model.call).parameters)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(size is None or isinstance(size, int) for size in value)


def _unique(job: Job, specs: list[TensorSpec]) -> list[TensorSpec]:
    names = [spec.name for spec in specs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(job.asked, f"two inputs are called {twice[0]}", "give each keras.Input a name of its own")
    return specs
