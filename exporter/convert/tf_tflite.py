"""SavedModel → TFLite by TensorFlow's converter. Runs in a TensorFlow process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported

LABEL = "the conversion savedmodel → tflite"


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a Program's SavedModel into a TFLite file in fp32 whose signature has the program's names.

    Only operators of TFLite's own: what needs TensorFlow's at run time isn't a TFLite model.

    Raises:
        Unsupported: an operator that TFLite doesn't have; it is named, with the layer that it stands in.
    """
    import tensorflow as tf

    from ..sources.tf_graph import SIGNATURE

    converter = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[SIGNATURE])
    try:
        Path(out).write_bytes(converter.convert())
    except Exception as error:
        missing = _missing(str(error))
        if missing:
            found = f"TFLite has no operator {', '.join(missing)}"
            raise Unsupported(LABEL, found, "replace it in the model, or choose another --target") from error
        raise
    return {}


def _missing(text: str) -> list[str]:
    """Operators that TFLite lacks, each with its place in the model where the converter tells it."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        op = re.search(
            r"'tf\.(\w+)' op (?:is neither a custom op nor a flex op|requires element_shape to be static)", line
        )
        if op:
            place = re.search(r'"([^"@]+/[^"@]+)@', line)
            found[f"{op[1]} ({place[1]})" if place else op[1]] = None
    return list(found)
