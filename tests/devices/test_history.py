"""Figures of a real store over time: changes of known place and size, and series that must not meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seatrial.core.errors import NothingMeasured
from seatrial.devices.history import Point, changes, history
from seatrial.devices.store import Store

RNG = np.random.default_rng(11)


def points(levels: np.ndarray, noise: float = 0.01) -> list[Point]:
    values = levels * np.exp(RNG.normal(0, noise, len(levels)))
    return [Point(str(i), float(i), float(ms), "same") for i, ms in enumerate(values)]


def test_a_level_that_rises_by_five_percent_is_found_where_it_rose():
    hits = []
    for _ in range(50):
        found = changes(points(np.r_[np.full(20, 2.0), np.full(20, 2.1)]))
        hits.append(len(found) == 1 and abs(found[0].at - 20) <= 1 and abs(found[0].ratio - 1.05) < 0.01)
    assert sum(hits) >= 48


def test_noise_alone_is_hardly_ever_a_change():
    alarms = sum(bool(changes(points(np.full(40, 2.0), 0.03))) for _ in range(100))
    assert alarms <= 5


def test_one_bad_hour_and_a_change_too_small_to_matter_are_none():
    spike = np.full(30, 2.0)
    spike[14] = 3.0
    assert changes(points(spike)) == []
    assert changes(points(np.r_[np.full(20, 2.0), np.full(20, 2.01)], noise=1e-4)) == []
    assert changes(points(np.r_[np.full(20, 2.0), np.full(20, 2.03)], noise=1e-4)) != []


def test_few_sessions_say_nothing():
    assert changes(points(np.array([1.0, 1.0, 2.0, 2.0, 2.0]))) == []


def row(session: int, ms: float, **changed: object) -> dict[str, object]:
    run = {"name": "m", "same": "x", "blocks": [[int(ms * 1e6)] * 3] * 2}
    facts = {
        "identity": {"cpu": "A CPU"},
        "runtime": {"name": "onnxruntime", "version": "1.0"},
        "arm": {"precision": "fp32", "settings": {"threads": 1}},
    }
    return {
        "artifact": "one", "settings": "s", "shapes": "s", "fingerprint": "here", "protocol": 1, "launch": 0,
        "session": str(session), "arm": "m.onnx", "status": "ok", "cost_s": 1.0, "created": float(session),
        "facts": facts, "samples": {"run": run}, **changed,
    }  # fmt: skip


def test_series_of_two_devices_or_protocols_never_meet(tmp_path: Path):
    store = Store(tmp_path / "facts.db")
    for i in range(8):
        store.add([row(i, 2.0), row(i, 9.0, fingerprint="there"), row(i, 5.0, protocol=2)])
    store.add([row(0, 1.0, arm="m.onnx (duplicate)"), row(0, 1.0, arm="candidate")])
    found = history(store)
    assert [[point.ms for point in series.points] for series in found] == [[2.0] * 8, [9.0] * 8, [5.0] * 8]
    assert all(series.changes == [] for series in found)
    assert found[0].runtime == "onnxruntime 1.0"


def test_a_change_says_whether_the_files_were_the_same(tmp_path: Path):
    store = Store(tmp_path / "facts.db")
    for i in range(12):
        late = i >= 6
        store.add(
            [row(i, 2.2 if late else 2.0, artifact="two" if late else "one"), row(i, 3.3 if late else 3.0, arm="n")]
        )
    one, other = history(store)
    assert [(c.at, c.same_artifact) for c in one.changes] == [(6, False)]
    assert [(c.at, c.same_artifact) for c in other.changes] == [(6, True)]
    assert one.to_dict()["changes"][0]["ratio"] == pytest.approx(1.1)


def test_a_store_without_a_bench_is_nothing_measured(tmp_path: Path):
    with pytest.raises(NothingMeasured, match="holds no bench"):
        history(Store(tmp_path / "facts.db"))
