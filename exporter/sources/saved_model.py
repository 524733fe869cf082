"""A TensorFlow SavedModel's folder as a source, by one of its signatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.ids import file_sha256
from ...core.specs import TensorSpec
from . import tf_graph
from .boundary import Boundary, declared
from .job import Job


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Program of a SavedModel: its signature with fixed sizes, but for the dimensions that stay free."""
    asked = Job.from_dict(job)
    tf_graph.check_args(asked, ["signature", "preprocess"])
    tf_graph.prepare()
    path = Path(asked.path)
    model, name = _load(asked, path)
    signature = model.signatures[name]
    specs = sorted(signature.structured_input_signature[1].items())
    known = {key: tf_graph.safe(key) for key in [*dict(specs), *signature.structured_outputs]}

    def call(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        answers = signature(**{key: feed[known[key]] for key, _ in specs})
        return {known[key]: answers[key] for key in sorted(answers)}

    inputs = [_spec(asked, known[key], spec) for key, spec in specs]
    edge = Boundary.make(asked, declared(asked), inputs, own="")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    given = tf_graph.Given(
        call=call,
        inputs=inputs,
        reference=f"TensorFlow, fp32, one thread, the signature {name}",
        id_parts=[[str(p.relative_to(path)), file_sha256(p)] for p in files],
        edge=edge,
        variables=list(getattr(model, "variables", [])),
    )
    return tf_graph.capture(asked, given)


def _load(job: Job, path: Path) -> tuple[Any, str]:
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(path))
    except Exception as error:
        found = f"it is not a whole SavedModel: {tf_graph.first_line(error)}"
        raise UsageError(job.asked, found, "check its files, or save the model again") from error
    signatures = {k: v for k, v in getattr(model, "signatures", {}).items() if not k.startswith("__saved_model")}
    if not signatures:
        todo = "save it with one: tf.saved_model.save(model, folder, signatures=...), or model.export(folder)"
        raise UsageError(job.asked, "it has no signature, so what goes in and out is not known", todo)
    asked = job.args.get("signature")
    if asked is not None and asked not in signatures:
        found = f"it has no signature {asked}"
        raise UsageError(f"--arg signature={asked}", found, f"it has: {', '.join(sorted(signatures))}")
    if asked is None and len({str(_ends(s)) for s in signatures.values()}) > 1:
        listed = "\n         ".join(f"{name}: {_words(signatures[name])}" for name in sorted(signatures))
        todo = f"choose one: --arg signature={min(signatures)}"
        raise UsageError(job.asked, f"it has {len(signatures)} signatures:\n         {listed}", todo)
    default = tf_graph.SIGNATURE if tf_graph.SIGNATURE in signatures else min(signatures)
    return model, asked or default


def _ends(signature: Any) -> list[Any]:
    """What goes in and comes out, with types and sizes, in one order."""
    sides = signature.structured_input_signature[1], signature.structured_outputs
    return [[(k, side[k].dtype.name, str(side[k].shape)) for k in sorted(side)] for side in sides]


def _words(signature: Any) -> str:
    ins, outs = (", ".join(f"{name}: {dtype}{shape}" for name, dtype, shape in side) for side in _ends(signature))
    return f"{ins} → {outs}"


def _spec(job: Job, name: str, spec: Any) -> TensorSpec:
    if spec.shape.rank is None:
        todo = "save it again with a signature that has a fixed number of axes"
        raise UsageError(job.asked, f"the input {name} has no known number of axes", todo)
    return TensorSpec(name, spec.dtype.name, tf_graph.axes(name, spec.shape.as_list()))
