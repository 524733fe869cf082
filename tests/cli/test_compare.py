"""`seatrial compare` as CI meets it: verdicts, exit codes, and words that can't be taken for green."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner, Result
from seatrial.cli.compare import command
from seatrial.cli.gate_result import EXIT, EXIT_STRICT
from seatrial.core.errors import UsageError
from seatrial.devices.gate import Decision, Verdict
from seatrial.devices.stats import Interval


@pytest.fixture(autouse=True)
def _own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "lease"))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tiny.write_bundle(tmp_path / "base", 10), tiny.write_bundle(tmp_path / "candidate", 60)


def compare(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_a_proven_slowdown_exits_1_with_what_changed_and_how_to_see_it_again(pair, tmp_path, monkeypatch):
    base, candidate = pair
    tiny.quiet_machine(monkeypatch, lambda artifact: 1.06 if "candidate" in artifact else 1.0)
    result = compare(base, candidate, "--quick", "--seed", 7, "--json", "-")
    assert result.exit_code == 1, result.output
    assert "REGRESS: proven slower by more than 1.0%" in result.stderr
    assert "MatMul: 10 nodes in the base, 60 in the candidate" in result.stderr
    assert "operators that take longer (" in result.stderr
    assert "us  10 and 60 MatMul: " in result.stderr
    command_line = f"reproduce: seatrial compare {base} {candidate} --tolerate 1% --detect 10% --quick --seed 7"
    assert command_line in result.stderr
    data = json.loads(result.stdout)
    assert (data["schema"], data["exit_code"]) == ("seatrial.gate/1", 1)
    (one,) = data["benchmarks"]
    assert (one["name"], one["comparison"]["verdict"], one["accepted"]) == ("candidate", "REGRESS", False)
    assert len(one["comparison"]["launches"]) == 5
    assert "--quick" in result.stderr.splitlines()[-1]


def test_a_candidate_that_does_not_run_exits_4(tmp_path):
    base = tiny.write_bundle(tmp_path / "base")
    result = compare(base, tiny.write_bundle(tmp_path / "candidate", output_error=0.5))
    assert result.exit_code == 4
    assert "MISSING: candidate did not produce (mismatch)" in result.stdout
    assert "Nothing was compared" in result.stdout


@pytest.mark.parametrize("flags", [(), ("--strict",), ("--json", "-")])
def test_without_a_baseline_it_is_new_and_exits_4(flags, tmp_path):
    result = compare(tmp_path / "absent", tiny.write_bundle(tmp_path / "candidate"), *flags)
    assert result.exit_code == 4
    report = result.stderr if "--json" in flags else result.stdout
    assert report.startswith("NEW: there is no baseline")
    assert "Nothing was compared. Keep a bundle there" in report
    assert "nan" not in report
    if "--json" in flags:
        assert json.loads(result.stdout)["benchmarks"][0]["comparison"]["verdict"] == "NEW"


def decided(verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every comparison end so, without launches."""
    log = Interval(0.02, -0.02, 0.06, 12, 0.98, 0.04)
    decision = Decision(verdict, "for a test", effect=log, canary=log, detectable=math.inf)
    monkeypatch.setattr("seatrial.devices.compare.decide", lambda *_: decision)


@pytest.mark.parametrize(
    ("verdict", "plain", "strict", "words"),
    [
        (Verdict.INCONCLUSIVE, 0, 3, "NOT GREEN"),
        (Verdict.INVALID, 4, 4, "Nothing valid was compared"),
        (Verdict.NEW, 4, 4, "Nothing was compared"),
        (Verdict.PASS, 0, 0, "proves a slowdown of no size at all"),
    ],
)
def test_what_is_not_decided_is_never_green_by_silence(verdict, plain, strict, words, pair, monkeypatch):
    decided(verdict, monkeypatch)
    for flags, code in (((), plain), (("--strict",), strict)):
        result = compare(*pair, *flags)
        assert result.exit_code == code
        assert result.stdout.startswith(f"{verdict}: for a test")
        assert words in result.stdout


def test_every_verdict_has_an_exit_code():
    assert set(EXIT) == set(EXIT_STRICT) == {str(verdict) for verdict in Verdict}


@pytest.mark.parametrize("margin", ["5", "x", "-1%", "100%", "nan"])
def test_a_margin_that_could_mean_two_things_is_refused(margin: str):
    result = compare("a", "b", f"--tolerate={margin}")
    assert result.exit_code == 2
    assert "5% or 0.05" in result.stderr


def test_tolerate_must_be_less_than_detect():
    result = compare("a", "b", "--tolerate", "5%", "--detect", "0.05")
    assert isinstance(result.exception, UsageError)
    assert "less than detect" in result.exception.found


def test_a_path_that_is_no_bundle_is_a_usage_error_of_the_whole_program(tmp_path):
    line = [sys.executable, "-P", "-m", "seatrial", "compare", str(tmp_path), str(tmp_path / "b")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "no such folder" in done.stderr
