"""`inspect`: the facts of a bundle, an ``.onnx``, a ``.tflite`` or an OpenVINO IR."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ...core import process
from ...core.bundle import MANIFEST, Bundle
from ...core.errors import CheckFailed, ChildFailed, UsageError
from ...core.paths import check_readable
from ..workspace import workspace

LIMITS = process.Limits(timeout_s=300.0)

READERS = {
    ".onnx": "seatrial.exporter.inspect.onnx_file:read",
    ".tflite": "seatrial.exporter.inspect.tflite_file:read",
    ".xml": "seatrial.exporter.inspect.ir_file:read",
}
_PT2 = (
    "a program that torch.export saved. Its loader unpickles, which can run any code, so it was not opened here; "
    "`seatrial export` opens it in a process of its own"
)


class File(TypedDict):
    """One file: its name in the model's folder and its size; None where it is missing or was not looked at."""

    name: str
    size_bytes: int | None


class Parameters(TypedDict):
    """Stored numbers: all of them, and ``count`` and ``size_bytes`` by element type."""

    count: int
    size_bytes: int
    by_dtype: dict[str, dict[str, int]]


class Inspection(TypedDict):
    """What `inspect` found.

    Keys:
        kind: ``onnx``, ``tflite``, ``openvino`` or ``pt2``.
        path: as it was given.
        files: the files that belong together.
        size_bytes: of all of them.
        inputs: specs as data: ``name``, ``dtype``, ``shape`` (a name stands for a free dimension).
        outputs: the same.
        parameters: the numbers that the file stores; None where it was not opened.
        precision: of the operators that do the arithmetic: ``fp32``, ``fp16``, ``bf16``, ``int8``, ``int8 weights``
            (stored so, computed in float), ..., or ``mixed``; empty where there is none.
        heavy: how many operators of each precision.
        ops: how many operators of each type, most first.
        nested_ops: the same for branches, loop bodies and functions.
        macs: multiplications with an addition in one inference; None where shapes are unknown.
        macs_not_counted: operators that `macs` leaves out, by type.
        made_by: producer, versions, signatures: what the format tells.
        notes: what else one should know.
        bundle: of a bundle, what its manifest says; None otherwise.
    """

    kind: str
    path: str
    files: list[File]
    size_bytes: int
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parameters: Parameters | None
    precision: str
    heavy: dict[str, int]
    ops: dict[str, int]
    nested_ops: dict[str, int]
    macs: int | None
    macs_not_counted: dict[str, int]
    made_by: dict[str, Any]
    notes: list[str]
    bundle: dict[str, Any] | None


def inspect(path: Path | str) -> Inspection:
    """Read what a bundle or a model file holds; nothing in it is run.

    Args:
        path: a bundle's folder, an ``.onnx``, a ``.tflite``, an IR's ``.xml`` (or a ``.pt2``, which isn't opened).

    Raises:
        UsageError: missing, truncated, or of another kind.
        CheckFailed: a bundle whose manifest has changed.
        MissingPart: the library that reads an ``.onnx`` is not installed.
    """
    path = Path(path)
    asked = f"the model {path}"
    check_readable(path, asked)
    if path.is_dir():
        return _bundle(path)
    if path.suffix == ".pt2":
        return _unopened(path)
    if path.suffix not in READERS:
        found = f"a file {path.suffix or 'without a suffix'}"
        raise UsageError(asked, found, f"give a bundle's folder or one of: {', '.join(READERS)}")
    return _read(path, asked)


def _read(path: Path, asked: str) -> Inspection:
    if path.stat().st_size == 0:
        raise UsageError(asked, "the file is empty", "download or export it again")
    with workspace("inspect") as folder:
        try:
            found = process.call(READERS[path.suffix], {"path": str(path)}, workdir=folder, limits=LIMITS, label=asked)
        except ChildFailed as error:
            if error.kind not in ("error", "signal"):
                raise
            # The readers name what they know; anything else is a file that nobody meant to be read.
            found_text = f"it can't be read as {path.suffix}: {error.found}"
            raise UsageError(asked, found_text, "check the file; download or export it again", error.log) from error
    result: Inspection = found  # type: ignore[assignment]
    return result


def _unopened(path: Path) -> Inspection:
    size = path.stat().st_size
    return {
        "kind": "pt2",
        "path": str(path),
        "files": [{"name": path.name, "size_bytes": size}],
        "size_bytes": size,
        "inputs": [],
        "outputs": [],
        "parameters": None,
        "precision": "",
        "heavy": {},
        "ops": {},
        "nested_ops": {},
        "macs": None,
        "macs_not_counted": {},
        "made_by": {},
        "notes": [_PT2],
        "bundle": None,
    }


def _bundle(path: Path) -> Inspection:
    if not (path / MANIFEST).is_file():
        names = [p.name for p in sorted(path.iterdir()) if p.suffix in READERS or (p / MANIFEST).is_file()]
        todo = f"give one of these in it: {', '.join(names)}" if names else "give a bundle's folder or a model file"
        raise UsageError(f"the model {path}", f"a folder without {MANIFEST}", todo)
    bundle = Bundle.read(path)
    manifest = bundle.manifest
    check_readable(bundle.model, f"the model of the bundle {path}")
    found = _read(bundle.model, f"the model of the bundle {path}")
    # The manifest's names are what feeds use; its specs carry ranges of integers too.
    found["path"], found["inputs"], found["outputs"] = str(path), manifest["inputs"], manifest["outputs"]
    found["bundle"] = {**_manifest_facts(manifest), "hashes": _hashes(bundle)}
    return found


def _hashes(bundle: Bundle) -> str:
    """``verified``, or what is wrong."""
    try:
        bundle.check_files()
    except CheckFailed as error:
        return f"NOT verified: {error.found}"
    return "verified"


def _manifest_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    parity = (manifest.get("proof") or {}).get("parity") or {}
    host = manifest.get("proven_on") or {}
    recipe = manifest.get("recipe") or {}
    plain = ("name", "target", "precision", "settings", "source", "route", "tools", "data", "licence", "allow_mismatch")
    return {
        **{key: manifest.get(key) for key in plain},
        "parity": {key: parity.get(key) for key in ("ok", "sqnr_db", "agreement", "samples")},
        "accuracy": (manifest.get("proof") or {}).get("accuracy"),
        "problems": (manifest.get("proof") or {}).get("problems", []),
        "proven_on": {key: host.get(key) for key in ("cpu", "os", "machine")},
        "calibration_id": recipe.get("calibration_id"),
    }
