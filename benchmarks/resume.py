"""SIGKILL at random moments of small searches, resumed by the same command each time: `make bench-resume`.

Two searches: one over the deployments of a given model (10 kills, six minutes), and with `--training` one over models
that are trained (20 kills). After every kill the store is read: no fact may be lost, changed or double; at the end
every launch is there once, and only the step that a kill cut off was done again. A search over models must end with
the models, fronts and choice of one that nothing disturbed: there measurements are replayed, all else runs. Exits 1
otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from common import heading

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "shared"))
import searches

GONE_S = 2.0
"""How long a child may outlive its parent."""
MODEL = """
import torch


def get_model():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2, 1), torch.nn.ReLU()]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 8)]
    return torch.nn.Sequential(*layers).eval()


def get_args():
    return (torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)),)
"""
OPTIONS = ("--target", "onnxruntime,openvino,tflite", "--precision", "fp32,int8", "--threads", "1")
TRAINED = (
    searches.digits([0.5, 1.0], [4, 8])
    + """
finetune = {"epochs": 2}
targets = ["onnxruntime"]
precisions = ["fp32", "int8"]
search = {"evaluations": 3, "calibration": 50, "examples": 300}
"""
)
Facts = dict[tuple[object, ...], object]
TABLES = {
    "trials": ("study", "candidate"),
    "models": ("study", "model"),
    "measurements": ("session", "launch", "arm"),
}


@dataclass(frozen=True)
class Kind:
    """One of the two searches.

    Attributes:
        kills: of all its searches together.
        a_search: after so many a search is left to its end, so that moments fall into all its stages.
        latest_s: a run is killed within so many seconds after its start, but not in the first; None for `SHARE`.
        python: what the interpreter runs.
        words: of the command.
        steps: a pattern of the steps that may not be done twice.
        env: variables of its processes.
    """

    kills: int
    a_search: int
    latest_s: float | None
    python: tuple[str, ...]
    words: tuple[str, ...]
    steps: str
    env: dict[str, str]


DEPLOYMENTS = Kind(
    10,
    3,
    25.0,
    ("-m", "seatrial"),
    ("search", "small.py", *OPTIONS, "--calibration", "calibration.npz"),
    "(?!loading )",  # every run that goes on loads the model afresh, to see whether it is still the same
    {},
)
TRAINING = Kind(
    20,
    20,
    None,
    ("-c", searches.SCRIPT),
    ("search", "study.py"),
    "the shared training|training candidate|timing",
    {"SEATRIAL_TEST": json.dumps({"replay": True, "ranked": 3})},
)
EARLIEST_S = 1.0
SHARE = 0.25
"""Of what an undisturbed search takes, within which a run is killed: on a busy machine moments fall into all its
stages, too."""
UNDISTURBED = -1
"""The number of the search that nothing kills."""


@dataclass
class Run:
    """One run of the command: its steps, how long it lived, what the store held after it."""

    number: int
    killed: bool
    seconds: float
    steps: list[str]
    facts: Facts
    left: int

    @property
    def cut(self) -> str:
        """The step that the kill fell into."""
        return self.steps[-1] if self.steps else "start"


def write(folder: Path) -> None:
    """The model and its calibration data, and the study file."""
    import numpy as np

    (folder / "small.py").write_text(MODEL)
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64)).astype(np.float32)
    np.savez(folder / "calibration.npz", input=images)
    (folder / "study.py").write_text(TRAINED)


def run(folder: Path, kind: Kind, number: int, kill_after_s: float | None) -> Run:
    """The command, killed after so many seconds unless it ends before."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    # Of the one search the seed is a part; of the other all searches are to end alike.
    seed = ["--seed", str(number)] if kind is DEPLOYMENTS else []
    argv = [sys.executable, "-P", *kind.python, *kind.words, *seed, "-o", f"out-{number}"]
    env = {**os.environ, **kind.env, "SEATRIAL_BENCH_MARK": mark}
    start, log = time.monotonic(), folder / "log.txt"
    with log.open("w") as out:
        child = subprocess.Popen(argv, cwd=folder, env=env, stdout=out, stderr=out)
        timer = threading.Timer(kill_after_s, child.kill) if kill_after_s else None
        if timer:
            timer.start()
        code = child.wait()
        if timer:
            timer.cancel()
    seconds, text = time.monotonic() - start, log.read_text()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"the search ended with {code}:\n{text}")
    steps = re.findall(r"^\[ *[\d.]+ s\] (.+)$", text, re.MULTILINE)
    return Run(number, code != 0, seconds, steps, facts(folder / f"out-{number}"), left(mark))


def facts(folder: Path) -> Facts:
    """Every row of the store by table and key; a key that is there twice ends all."""
    file = folder / "facts.sqlite"
    found: Facts = {}
    if not file.exists():
        return found
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, key in TABLES.items():
        for row in connection.execute(f"SELECT * FROM {table}") if table in tables else ():
            name = (table, *(row[column] for column in key))
            if name in found:
                raise SystemExit(f"DOUBLE: {name}")
            found[name] = tuple(row)
    connection.close()
    return found


def left(mark: str) -> int:
    """Processes of a run that outlive it."""
    end = time.monotonic() + GONE_S
    while (count := sum(_carries(p, mark) for p in psutil.process_iter())) and time.monotonic() < end:
        time.sleep(0.1)
    return count


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("SEATRIAL_BENCH_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def killed(folder: Path, kind: Kind, rng: random.Random, latest_s: float) -> list[Run]:
    """Runs of one search after the other, until all kills have fallen into one; the last is left to its end."""
    runs: list[Run] = []
    kills = here = number = 0
    while kills < kind.kills or runs[-1].killed:
        more = kills < kind.kills and here < kind.a_search
        runs.append(run(folder, kind, number, rng.uniform(EARLIEST_S, latest_s) if more else None))
        kills += runs[-1].killed
        number, here = (number, here + 1) if runs[-1].killed else (number + 1, 0)
        print(f"{kills} of {kind.kills} kills: {runs[-1].seconds:.1f} s, {runs[-1].cut}", file=sys.stderr, flush=True)
    return runs


def faults(runs: list[Run], kind: Kind) -> list[str]:
    """What was lost, done twice without need, or left behind."""
    found = [f"run {i}: {each.left} processes left" for i, each in enumerate(runs) if each.left]
    for number in {each.number for each in runs}:
        own = [each for each in runs if each.number == number]
        for before, after in itertools.pairwise(own):
            if not before.facts.items() <= after.facts.items():
                found.append(f"search {number}: facts of a killed run were lost or changed")
        found += [f"search {number}: {each}" for each in (*_twice(own, kind.steps), *_gaps(own[-1].facts))]
    return found


def _twice(own: list[Run], steps: str) -> list[str]:
    said = Counter(step for each in own for step in each.steps if re.match(steps, step))
    cut = Counter(each.cut for each in own if each.killed)
    return [f"{step!r} was done {n} times" for step, n in sorted(said.items()) if n > 1 + cut[step]]


def differences(folder: Path, runs: list[Run]) -> list[str]:
    """What searches that were killed found otherwise than one that was not."""
    expected = searches.outcome(folder / f"out-{runs[0].number}")
    found = []
    for number in sorted({each.number for each in runs[1:]}):
        other = searches.outcome(folder / f"out-{number}")
        found += [f"search {number}: other {what}" for what in expected if other[what] != expected[what]]
    return found


def _gaps(end: Facts) -> list[str]:
    found = []
    sessions = {str(key[1]) for key in end if key[0] == "measurements"}
    if len(sessions) != 2:
        found.append(f"sessions {sorted(sessions)}, expected a race and a confirmation")
    for session in sessions:
        launches = sorted({int(str(key[2])) for key in end if key[:2] == ("measurements", session)})
        if launches != list(range(len(launches))):
            found.append(f"launches of {session}: {launches}")
    return found


def table(runs: list[Run]) -> str:
    """One row for each run."""
    lines = [f"| search | run | ended by | after s | in the step | {' | '.join(TABLES)} | processes left |"]
    lines.append("|" + "---|" * (6 + len(TABLES)))
    for i, each in enumerate(runs, 1):
        counts = " | ".join(str(sum(key[0] == name for key in each.facts)) for name in TABLES)
        how = "SIGKILL" if each.killed else "itself"
        step = each.cut.partition(":")[0] if each.killed else ""
        search = "undisturbed" if each.number == UNDISTURBED else each.number
        lines.append(f"| {search} | {i} | {how} | {each.seconds:.1f} | {step} | {counts} | {each.left} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--training", action="store_true", help="the search over models that are trained")
    arguments = parser.parse_args()
    kind, start = TRAINING if arguments.training else DEPLOYMENTS, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seatrial-resume-") as name:
        folder = Path(name)
        write(folder)
        first = [run(folder, kind, UNDISTURBED, None)] if arguments.training else []
        runs = killed(folder, kind, random.Random(arguments.seed), kind.latest_s or SHARE * first[0].seconds)
        wrong = faults([*first, *runs], kind)
        wrong += differences(folder, [*first, *runs]) if first else []
    what = "a search that trains" if arguments.training else "a search"
    print(heading(f"SIGKILL at {kind.kills} random moments of {what}", "make bench-resume"))
    print(table([*first, *runs]))
    redone = sum(len(each.steps) for each in runs) - len({(each.number, s) for each in runs for s in each.steps})
    same = "; models, fronts and choice those of an undisturbed search" if first else ""
    right = f"no fact lost or changed, none double, nothing done again but the steps that were cut{same}"
    minutes = (time.monotonic() - start) / 60
    print(f"\nMoments from seed {arguments.seed}; {minutes:.1f} minutes; {redone} steps begun again.", end=" ")
    print(f"**{'; '.join(wrong) or right}.**")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
