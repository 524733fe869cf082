"""A finished study on runtimes that it did not try: no capture, no training, and only what its finalists suggest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.process import Limits
from ..devices.facts import cpu_flags, host_facts
from ..targets import get, require
from .candidate import Candidate, candidates
from .findings import Findings
from .folder import study_folder
from .run import Running

if TYPE_CHECKING:
    from .study import Study

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What it took."""

    conversions: int
    launches: int
    seconds: float


def widen(study: Study, targets: Sequence[str], say: Say) -> Work | None:
    """Convert, prove and time for each new target what the finalists are: their precisions and numbers of threads.

    `study` knows of it afterwards, and its bundles are packed again. None where the study tried all of them.

    Raises:
        UsageError: no such target, or the study was made on another machine or by other runtimes.
        CannotDo: a target is not installed here.
    """
    tried = {c["target"] for c in study.candidates}
    new = [name for name in dict.fromkeys(targets) if name not in tried]
    for name in new:
        require(name)
    if not new:
        return None
    check_host(study)
    if "models" in study.document:
        todo = "say it among the study file's targets, and search with another -o, or --overwrite"
        raise UsageError(f"--target {new[0]}", "the search over many models did not try it", todo)
    start, said = time.monotonic(), []

    def heard(text: str) -> None:
        said.append(text)
        say(text)

    key, folder, drop = study.document["key"], study.folder, study.document["max_drop"]
    with study_folder(folder, key, False) as place, Running(place, key, Limits(), heard, drop) as running:
        running.making.load()
        space = _space(running, new)
        heard(f"to convert, prove and time: {', '.join(candidate.label for candidate in space)}")
        running.prove_all(space)
        running.race(0)
        again = running.finish(study.document["title"], drop, study.document["command"])
    study.document.clear()
    study.document.update(again.document)
    made = [text for text in said if text.startswith(("converting ", "making "))]
    launches = [text for text in said if text.startswith("timing, launch ")]
    return Work(len(made), len(launches), time.monotonic() - start)


def _space(running: Running, targets: Sequence[str]) -> list[Candidate]:
    """The defaults of the new targets in the precisions and threads of the finalists."""
    trials = running.trials
    found = Findings(trials.all(), trials.launches("race"), trials.launches("confirm"))
    finalists = [found.trials[each].candidate for each in found.finalists]
    precisions = list(dict.fromkeys(c.precision for c in finalists))
    threads = sorted({dict(c.settings)["threads"] for c in finalists})
    return [c for c in candidates(targets, precisions, threads, cpu_flags()) if c.is_default]


def check_host(study: Study) -> None:
    """Times of two machines, or of two versions of a runtime, must not meet in one study.

    Raises:
        UsageError: the study was made elsewhere.
    """
    was, here = study.document["host"], host_facts()["identity"]
    now: dict[str, Any] = {name: get(name).version() for name in was["runtimes"]}
    if (was["cpu"], was["flags"], was["cores"]) != (here["cpu"], here["flags"], here["cores"]):
        found = f"it was made on {was['cpu']}, this is {here['cpu']}"
    elif now != was["runtimes"]:
        found = f"it was made with other versions: {was['runtimes']}; here are {now}"
    else:
        return
    raise UsageError(f"the study {study.folder}", found, "search here anew, or add it where the study was made")
