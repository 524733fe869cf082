"""Searches over study files as a user runs them, in processes of their own: followed, killed, their times replayed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from seatrial.devices.store import Store, measurements, unpack
from seatrial.search.roster import tried
from seatrial.search.study import Study
from seatrial.search.trials import trials

# The protocol's own rounds and launches would take minutes; what is tested here doesn't depend on them.
SCRIPT = """
import functools, json, os, sys
from seatrial.devices import sitting, store
from seatrial.devices.launches import ArmRun, Launch
from seatrial.search import ranks, roster, several, underway
from seatrial.search.samplers import base

told = json.loads(os.environ["SEATRIAL_TEST"])
underway.Plan = functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02)
underway.CONFIRM_LAUNCHES = 2
ranks.RANKED = told.get("ranked", ranks.RANKED)
store.BUSY_S = told.get("busy_s", store.BUSY_S)
base.GIVE_UP = told.get("give_up", base.GIVE_UP)

if host := told.get("host"):
    roster.HERE = host
    several.host_name = lambda: host


def replayed(self, arms, plan):
    "A launch whose times are recorded ones: the larger a file, the faster, and no other disturbance."
    runs, opened = {}, {"load_ms": 1.0, "first_ms": 1.0, "version": "1", "shapes": {}}
    for arm in arms:
        ns = int(1e10 / os.path.getsize(arm.artifact)) + len(json.dumps(dict(arm.settings)))
        runs[arm.name] = ArmRun(arm.name, arm.same, k=1, blocks=[[ns] * 3] * 2, opened=opened, cost_s=0.01)
    return Launch(self._next, str(self.seed), [], runs, 0.0, 0.01)


if told.get("replay"):
    sitting.Sitting._launch = replayed
from seatrial import cli
cli.main(sys.argv[1:])
"""


@dataclass
class Ended:
    """How a run went: its lines, its exit code, its errors."""

    lines: list[str]
    code: int
    error: str

    def said(self, *words: str) -> list[str]:
        """The lines that begin with one of these patterns."""
        return [line for line in self.lines if re.match("|".join(words), line)]


def begin(
    file: Path, out: Path, *more: str, env: Mapping[str, str] | None = None, **told: Any
) -> subprocess.Popen[str]:
    """A search, begun; see `command`."""
    return command("search", str(file), "-o", str(out), *more, env=env, **told)


def command(
    *words: str, env: Mapping[str, str] | None = None, stdout: Any = subprocess.DEVNULL, **told: Any
) -> subprocess.Popen[str]:
    """A command, begun; `told` is what `SCRIPT` reads: ``replay``, ``ranked``, ``busy_s``, ``host``."""
    argv = [sys.executable, "-P", "-c", SCRIPT, *words]
    env = {**os.environ, "SEATRIAL_TEST": json.dumps(told), **(env or {})}
    return subprocess.Popen(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env)


def follow(child: subprocess.Popen[str], heard: Callable[[str], None] = lambda text: None) -> Ended:
    """Its lines as they come, until it ends."""
    lines: list[str] = []
    error: list[str] = []
    assert child.stderr
    for line in child.stderr:
        step = re.match(r"\[ *[\d.]+ s\] (.*)", line)
        (lines if step else error).append(step[1] if step else line)
        if step:
            heard(step[1])
    return Ended(lines, child.wait(100), "".join(error))


def facts(where: Path | str) -> dict[tuple[str, ...], str]:
    """Every fact of a store as text by its key; it fails where one is there twice."""
    if isinstance(where, Path) and not where.exists():
        return {}
    found: dict[tuple[str, ...], str] = {}
    with closing(Store(where)) as store:
        store.create([trials, tried])
        rows = [(("trial", r.candidate), r.data) for r in store.ask(sa.select(trials))]
        rows += [(("model", r.model), r.data) for r in store.ask(sa.select(tried))]
        for r in store.ask(sa.select(measurements)):
            run = unpack(r.samples)["run"]
            rows.append((("measured", r.session, str(r.launch), r.arm), repr((r.artifact, r.created, run["blocks"]))))
    for key, text in rows:
        assert key not in found, f"{key} is there twice"
        found[key] = text
    return found


def outcome(folder: Path) -> dict[str, Any]:
    """What a search found, without what only a clock knows."""
    document = Study.read(folder).document
    keys = ("latency_ms", "status", "launches", "size_bytes", "accuracy")
    return {
        "models": list(document["models"]),
        "fronts": document["fronts"],
        "chosen": document["chosen"],
        "rows": {c["id"]: tuple(c[key] for key in keys) for c in document["candidates"]},
    }


def write_model(path: Path, hidden: int, name: str = "x") -> None:
    """8 → hidden → 3, random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(hidden)
    shapes = {"w1": (8, hidden), "b1": (hidden,), "w2": (hidden, 3), "b2": (3,)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), k) for k, s in shapes.items()]
    nodes = [
        helper.make_node("Gemm", [name, "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in ((name, 8), ("y", 3))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def digits(widths: Sequence[float], resolutions: Sequence[int]) -> str:
    """A study file's text: small networks of the family on the 8 × 8 digits of scikit-learn."""
    return DIGITS.replace("WIDTHS", str(list(widths))).replace("RESOLUTIONS", str(list(resolutions)))


DIGITS = """
family = {
    "name": "elastic", "size": 8, "stem": 8, "stem_stride": 1, "head": 32,
    "stages": [
        {"width": 16, "depth": 2, "stride": 2, "expand": 2},
        {"width": 24, "depth": 1, "stride": 2, "expand": 1},
    ],
    "widths": WIDTHS, "resolutions": RESOLUTIONS,
}
shared = {"epochs": 4, "batch": 32, "lr": 0.01}
budget = {"epochs": 3, "batch": 32, "lr": 0.01}


def load_data(part):
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = {"train": slice(0, 1000), "valid": slice(1000, 1400), "test": slice(1400, None)}[part]
    return (digits.images[rows] / 16)[:, None], digits.target[rows]


def get_labels():
    return list("0123456789")
"""
