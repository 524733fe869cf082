"""SIGKILL at 10 random moments of small searches, resumed by the same command each time: `make bench-resume`.

A search is killed at most three times and then left to its end, so that moments fall into all its stages. After every
kill the store is read: no fact may be lost, changed or double; at the end every candidate was proven once, every launch
is there once, and only the step that a kill cut off was done again. Six minutes; exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
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
from dataclasses import dataclass
from pathlib import Path

import psutil
from common import heading

KILLS, KILLS_A_SEARCH = 10, 3
EARLIEST_S, LATEST_S = 1.0, 25.0
"""A run is killed within these seconds after its start; a whole search takes about a minute."""
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
Facts = dict[tuple[object, ...], object]


@dataclass
class Run:
    """One run of the command: its steps, how long it lived, what the store held after it."""

    seed: int
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
    """The model and its calibration data."""
    import numpy as np

    (folder / "small.py").write_text(MODEL)
    images = np.random.default_rng(0).standard_normal((16, 3, 64, 64)).astype(np.float32)
    np.savez(folder / "calibration.npz", input=images)


def run(folder: Path, seed: int, kill_after_s: float | None) -> Run:
    """The command, killed after so many seconds unless it ends before."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    argv = [sys.executable, "-P", "-m", "seatrial", "search", "small.py", *OPTIONS]
    argv += ["--calibration", "calibration.npz", "--seed", str(seed), "-o", f"out-{seed}"]
    env = {**os.environ, "SEATRIAL_BENCH_MARK": mark}
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
    return Run(seed, code != 0, seconds, steps, facts(folder / f"out-{seed}"), left(mark))


def facts(folder: Path) -> Facts:
    """Every row of the store by table and key; a key that is there twice ends all."""
    file = folder / "facts.sqlite"
    found: Facts = {}
    if not file.exists():
        return found
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, key in (("trials", ("study", "candidate")), ("measurements", ("session", "launch", "arm"))):
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


def searches(folder: Path, rng: random.Random) -> list[Run]:
    """Runs of one search after the other, until all kills have fallen into one; the last is left to its end."""
    runs: list[Run] = []
    kills = here = seed = 0
    while kills < KILLS or runs[-1].killed:
        more = kills < KILLS and here < KILLS_A_SEARCH
        runs.append(run(folder, seed, rng.uniform(EARLIEST_S, LATEST_S) if more else None))
        kills += runs[-1].killed
        seed, here = (seed, here + 1) if runs[-1].killed else (seed + 1, 0)
        print(f"{kills} of {KILLS} kills: {runs[-1].seconds:.1f} s, {runs[-1].cut}", file=sys.stderr, flush=True)
    return runs


def faults(runs: list[Run]) -> list[str]:
    """What was lost, done twice without need, or left behind."""
    found = [f"run {i}: {each.left} processes left" for i, each in enumerate(runs) if each.left]
    for seed in {each.seed for each in runs}:
        own = [each for each in runs if each.seed == seed]
        for before, after in itertools.pairwise(own):
            if not before.facts.items() <= after.facts.items():
                found.append(f"search {seed}: facts of a killed run were lost or changed")
        found += [f"search {seed}: {each}" for each in (*_twice(own), *_gaps(own[-1].facts))]
    return found


def _twice(own: list[Run]) -> list[str]:
    # Every run that goes on loads the model afresh, to see whether it is still the same.
    said = [step for each in own for step in each.steps if not step.startswith("loading ")]
    cut = [each.cut for each in own if each.killed]
    return [f"{s!r} was done {said.count(s)} times" for s in sorted(set(said)) if said.count(s) > 1 + cut.count(s)]


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
    lines = ["| search | run | ended by | after s | in the step | trials | measurements | processes left |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for i, each in enumerate(runs, 1):
        counts = [sum(key[0] == name for key in each.facts) for name in ("trials", "measurements")]
        how = "SIGKILL" if each.killed else "itself"
        step = each.cut.partition(":")[0] if each.killed else ""
        lines.append(
            f"| {each.seed} | {i} | {how} | {each.seconds:.1f} | {step} | {counts[0]} | {counts[1]} | {each.left} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seatrial-resume-") as name:
        write(Path(name))
        runs = searches(Path(name), random.Random(arguments.seed))
    wrong = faults(runs)
    print(heading(f"SIGKILL at {KILLS} random moments of a search", "make bench-resume"))
    print(table(runs))
    redone = sum(len(each.steps) for each in runs) - len({(each.seed, s) for each in runs for s in each.steps})
    verdict = "; ".join(wrong) or "no fact lost or changed, none double, nothing done again but the steps that were cut"
    minutes = (time.monotonic() - start) / 60
    print(f"\nMoments from seed {arguments.seed}; {minutes:.1f} minutes; {redone} steps begun again. **{verdict}.**")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
