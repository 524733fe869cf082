"""The bundle format: a folder with a model, its proof and one manifest that vouches for every byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CheckFailed, UsageError
from .ids import file_sha256
from .specs import TensorSpec

SCHEMA = "seatrial.bundle/1"
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""The manifest's own hash, as ``sha256sum -c`` reads it."""

OUTSIDE = {MANIFEST, SEAL, "measurements.json"}
"""Files that the manifest doesn't cover: itself, its hash, and what changes with every measurement."""

EXPORT_AGAIN = "export it again; don't ship this one"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; `manifest` is its data, checked for schema only."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, path: Path | str) -> Bundle:
        """Read a bundle's manifest.

        Raises:
            UsageError: no such folder, no manifest, or a schema that this version doesn't know.
            CheckFailed: the manifest has changed.
        """
        path = Path(path)
        file = path / MANIFEST
        if not path.is_dir():
            found = "a file" if path.exists() else "no such folder"
            raise UsageError(f"the bundle {path}", found, "give the folder that `seatrial export` wrote")
        try:
            if (path / SEAL).is_file() and (path / SEAL).read_bytes() != seal(file).encode():
                raise CheckFailed(f"the bundle {path}", f"{MANIFEST} or {SEAL} has changed", EXPORT_AGAIN)
            manifest = json.loads(file.read_text())
        except FileNotFoundError:
            raise UsageError(f"the bundle {path}", f"no {MANIFEST} in it", "is it a bundle?") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"the bundle {path}", f"{MANIFEST} can't be read: {error}") from error
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            schema = manifest.get("schema") if isinstance(manifest, dict) else None
            raise UsageError(f"the bundle {path}", f"schema {schema!r}", f"this version reads {SCHEMA}")
        return cls(path, manifest)

    @property
    def target(self) -> str:
        """Name of the target."""
        return str(self.manifest["target"])

    @property
    def precision(self) -> str:
        """Precision of the recipe."""
        return str(self.manifest["precision"])

    @property
    def model(self) -> Path:
        """The model's main file."""
        return self.path / str(self.manifest["model"])

    @property
    def settings(self) -> dict[str, Any]:
        """The runtime settings that the proof holds for."""
        return dict(self.manifest["settings"])

    @property
    def inputs(self) -> list[TensorSpec]:
        """What goes in."""
        return [TensorSpec.from_dict(spec) for spec in self.manifest["inputs"]]

    @property
    def outputs(self) -> list[TensorSpec]:
        """What comes out."""
        return [TensorSpec.from_dict(spec) for spec in self.manifest["outputs"]]

    @property
    def labels(self) -> list[str] | None:
        """Class names, where the model is a declared classifier."""
        name = self.manifest.get("labels")
        return (self.path / name).read_text().splitlines() if name else None

    @property
    def golden(self) -> tuple[Path, Path]:
        """The Samples files of golden inputs and outputs."""
        return self.path / "golden/inputs.npz", self.path / "golden/outputs.npz"

    def check_files(self) -> None:
        """Hold every file against its hash.

        Raises:
            CheckFailed: a file is missing, changed, or not in the manifest.
        """
        listed: dict[str, dict[str, Any]] = self.manifest["files"]
        present = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()} - OUTSIDE
        present = {name for name in present if "__pycache__" not in name}
        bad = [f"{name} is missing" for name in sorted(listed.keys() - present)]
        bad += [] if (self.path / SEAL).is_file() else [f"{SEAL} is missing"]
        bad += [f"{name} is not in the manifest" for name in sorted(present - listed.keys())]
        for name in sorted(listed.keys() & present):
            try:
                if file_sha256(self.path / name) != listed[name]["sha256"]:
                    bad.append(f"{name} has changed")
            except OSError as error:
                bad.append(f"{name} can't be read: {error.strerror}")
        if bad:
            raise CheckFailed(f"the bundle {self.path}", "; ".join(bad), EXPORT_AGAIN)


def seal(manifest: Path) -> str:
    """What `SEAL` holds for a manifest."""
    return f"{file_sha256(manifest)}  {MANIFEST}\n"
