"""Sessions of known truth, which add up over runs; real workers, and times that no neighbour disturbs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from seatrial.core.errors import CannotDo, UsageError
from seatrial.devices import noise as module
from seatrial.devices.gate import Look
from seatrial.devices.noise import Setup, noise

QUICK = Setup(quick=True)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, quiet) -> None:
    """Few launches of a chain that loads fast; a block takes as long as its model has blocks."""
    monkeypatch.setattr(module, "WIDTH", 8)
    monkeypatch.setattr("seatrial.devices.family.QUICK_LOOKS", (Look(3, 1.0),))
    quiet(lambda artifact: int(re.findall(r"\d+", Path(artifact).stem)[0]) / 100)


def test_what_is_right_is_counted_and_sessions_add_up(tmp_path):
    file = tmp_path / "kept" / "sessions.jsonl"
    said: list[str] = []
    first = noise({0.0: 1, 0.2: 1}, setup=QUICK, file=file, progress=said.append)
    assert [(k.name, k.verdicts, k.right.centre) for k in first.kinds] == [
        ("A/A", {"PASS": 1}, 1.0),
        ("+20 %", {"REGRESS": 1}, 1.0),
    ]
    assert first.kinds[1].off is not None
    assert first.kinds[1].off[1] < 0.01
    assert [text.partition(":")[0] for text in said] == ["session 1 of 2, A/A", "session 2 of 2, +20%"]
    file.write_bytes(file.read_bytes() + b'{"key": "half a li')  # a kill while it was written
    again = noise({0.0: 2, 0.2: 1}, setup=QUICK, file=file)
    assert [k.sessions for k in again.kinds] == [2, 1]
    assert len(file.read_text().splitlines()) == 4
    assert noise({0.0: 2, 0.2: 1}, setup=QUICK, file=file).kinds == again.kinds  # nothing is left to be run
    assert json.loads(json.dumps(again.to_dict()))["kinds"][0]["name"] == "A/A"


def test_sessions_of_another_rule_are_not_added(tmp_path):
    file = tmp_path / "s.jsonl"
    noise({0.0: 1}, setup=QUICK, file=file)
    other = noise({0.0: 1}, setup=Setup(quick=True, detect=0.2), file=file)
    assert other.kinds[0].sessions == 1
    assert len(file.read_text().splitlines()) == 2


def test_a_wrong_verdict_counts_against_the_gate(tmp_path, quiet):
    """Times that don't show what was done: a gate that sees no slowdown is not right."""
    quiet(lambda artifact: 1.0)
    (kind,) = noise({0.2: 1}, setup=QUICK, file=tmp_path / "s.jsonl").kinds
    assert kind.verdicts == {"PASS": 1}
    assert kind.right.centre == 0
    assert kind.off is not None
    assert kind.off[0] == pytest.approx(1 - 1 / 1.2, abs=0.01)


def test_a_model_of_the_user_is_held_against_itself(tmp_path, bundle, quiet):
    quiet(lambda artifact: 1.0)
    found = noise({0.0: 1}, model=bundle("mine 1"), setup=QUICK, file=tmp_path / "s.jsonl")
    assert found.kinds[0].verdicts == {"PASS": 1}
    with pytest.raises(UsageError):
        noise({0.0: 1}, model=tmp_path / "absent", file=tmp_path / "s.jsonl")


@pytest.mark.parametrize("slower", [0.005, 0.033])
def test_a_slowdown_that_blocks_cannot_give_is_refused(slower, tmp_path):
    with pytest.raises(UsageError, match="steps of 1%"):
        noise({slower: 1}, file=tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()


def test_a_busy_process_that_ends_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BUSY", "raise SystemExit('no work today')")
    with pytest.raises(CannotDo, match="no work today"):
        noise({0.0: 1}, setup=Setup(quick=True, busy=1), file=tmp_path / "s.jsonl")
