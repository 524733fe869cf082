"""Open a bundle and use it: run inputs, verify it again."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.bundle import Bundle
from ..core.errors import CannotDo, CheckFailed, SeatrialError, UsageError
from ..core.paths import check_readable
from ..devices.sessions import WorkerSession, open_session
from ..targets import get
from . import as_is
from .images import SUFFIXES, Preprocess
from .proof import parity

if TYPE_CHECKING:
    from numpy import ndarray

    from ..core.samples import Feed
    from ..targets import Session


@dataclass
class Model:
    """A bundle opened in its runtime: in this process, or beside it where the runtime has its own interpreter."""

    bundle: Bundle
    session: Session

    def run(self, feed: Mapping[str, ndarray]) -> Feed:
        """Outputs by name for inputs by name.

        Raises:
            UsageError: an input is missing, unknown, or of another dtype or shape.
            CannotDo: the runtime that is here raises an error.
        """
        _check(self.bundle, feed)
        with _refusal(self.bundle, "run"):
            return self.session.run(feed)

    def glance(self, feed: Mapping[str, ndarray]) -> tuple[Feed, float]:
        """Outputs, and the milliseconds of one inference: the second, since the first allocates."""
        self.run(feed)
        start = time.perf_counter()
        outputs = self.run(feed)
        milliseconds = (time.perf_counter() - start) * 1e3
        if isinstance(self.session, WorkerSession):  # most of that was the way there and back
            self.session.bind(feed)
            self.session.step()
            milliseconds = self.session.step_ns / 1e6
        return outputs, milliseconds

    def read(self, path: Path) -> Feed:
        """A photo, or an ``.npz`` with an array per input, as a feed for this model."""
        if path.suffix.lower() in SUFFIXES:
            data = self.bundle.manifest["preprocess"]
            if not data or len(self.bundle.inputs) != 1:
                raise UsageError(
                    f"the picture {path}", "the bundle has no preprocessing", "give an .npz of ready inputs"
                )
            check_readable(path, f"the picture {path}")
            return {self.bundle.inputs[0].name: Preprocess.from_dict(data).load(path)}
        if path.suffix != ".npz":
            raise UsageError(f"the input {path}", f"a file {path.suffix}", "give a picture or an .npz")
        return samples.arrays(path, f"the input {path}")

    def top(self, outputs: Feed, k: int = 5) -> list[tuple[str, float]]:
        """The k classes with the highest probability, of a batch those of its first sample.

        Empty where the model is no declared classifier.
        """
        import numpy as np

        labels = self.bundle.labels
        rows = self._rows(outputs)
        if labels is None or rows is None:
            return []
        scores = rows[0].astype(np.float64)
        # Outputs that are probabilities already stay as they are.
        ready = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3
        powers = np.exp(scores - scores.max())
        chances = scores if ready else powers / powers.sum()
        return [(labels[i], float(chances[i])) for i in chances.argsort()[::-1][:k]]

    def batch(self, outputs: Feed) -> int:
        """How many samples a declared classifier answered at once; 0 for other models."""
        rows = self._rows(outputs)
        return 0 if rows is None else len(rows)

    def _rows(self, outputs: Feed) -> ndarray | None:
        """Scores as (samples, classes)."""
        classes = self.bundle.manifest["classes"]
        if not classes or not outputs[classes].size:
            return None
        return outputs[classes].reshape(-1, outputs[classes].shape[-1])


def load(path: Path | str, settings: Mapping[str, Any] | None = None) -> Model:
    """Open a bundle with the settings that its proof holds for, or with others at the caller's risk.

    Raises:
        UsageError: not a bundle.
        CheckFailed: a file was changed.
        MissingPart: its runtime is not installed.
        CannotDo: the runtime that is here can't open it.
    """
    bundle = Bundle.read(path)
    bundle.check_files()
    with _refusal(bundle, "open"), _without_info():
        return Model(bundle, open_session(bundle.target, bundle.model, settings or bundle.settings))


@contextmanager
def _refusal(bundle: Bundle, what: str) -> Iterator[None]:
    """What a runtime raises, with the version that the bundle was proven with beside the one that is here."""
    try:
        yield
    except SeatrialError:
        raise
    except Exception as error:
        name, here = bundle.target, get(bundle.target).version()
        proven = bundle.manifest["tools"].get(name, "?")
        first = (str(error).strip().splitlines() or ["no message"])[0]
        found = f"{name} can't {what} it: {type(error).__name__}: {first}\n         "
        found += f"it was proven with {name} {proven}; here is {here}"
        again = "export it again here" if proven == here else f"install {name} {proven}, or export it again here"
        raise CannotDo(f"the bundle {bundle.path}", found, again) from error


@contextmanager
def _without_info() -> Iterator[None]:
    """Keep what a runtime's C++ says at level INFO off the user's stderr; all else is said afterwards."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not line.startswith(b"INFO:")))


def verify(path: Path | str) -> dict[str, Any]:
    """Hold a bundle against its hashes and replay its golden vectors here.

    Returns:
        ``files``, ``vectors`` and ``sqnr_db`` (lowest over all float outputs; None without any).

    Raises:
        CheckFailed: a hash or a vector doesn't match.
    """
    model = load(path)
    feeds, wants = (samples.load(file) for file in model.bundle.golden)
    found = [model.run(feed) for feed in feeds]
    manifest = model.bundle.manifest
    names = [f"golden {i}" for i in range(len(wants))]
    quanta, precision = manifest["quanta"], manifest["precision"]
    check = parity.compare(
        precision if precision in parity.BARS_DB else "int8",
        names,
        as_is.real(wants, quanta),
        as_is.real(found, quanta),
        declared=manifest.get("detections"),
    )
    bar = manifest["tolerance"]["golden_sqnr_db"]
    if check.sqnr_db is not None and check.sqnr_db < bar:
        found_db = f"golden vectors are met at {check.sqnr_db:.1f} dB, needed {bar:g}"
        raise CheckFailed(f"the bundle {path}", found_db, "don't ship it to a machine like this one")
    if check.problems:
        raise CheckFailed(f"the bundle {path}", "; ".join(check.problems), "don't ship it to a machine like this one")
    return {"files": len(manifest["files"]), "vectors": len(wants), "sqnr_db": check.sqnr_db}


def _check(bundle: Bundle, feed: Mapping[str, ndarray]) -> None:
    asked = f"an input of {bundle.path.name}"
    wanted = ", ".join(map(str, bundle.inputs))
    names = {spec.name for spec in bundle.inputs}
    if set(feed) != names:
        raise UsageError(asked, f"given: {', '.join(feed) or 'nothing'}", f"needed: {wanted}")
    for spec in bundle.inputs:
        array = feed[spec.name]
        if not hasattr(array, "shape"):
            raise UsageError(asked, f"{spec.name} is {type(array).__name__}, not an array", f"needed: {wanted}")
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or str(array.dtype) != spec.dtype:
            raise UsageError(asked, f"{spec.name} is {array.dtype}{list(array.shape)}", f"needed: {wanted}")
