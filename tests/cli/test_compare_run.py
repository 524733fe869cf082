"""A run with several benchmarks: entries of seatrial.toml, one exit code, reports, and slowdowns that were accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tiny
from seatrial.cli import gate_reports, gate_text
from seatrial.cli.gate_cases import entries, only
from seatrial.cli.gate_result import Benchmark, Run
from seatrial.core.errors import UsageError
from seatrial.devices.accept import today
from seatrial.devices.compare import unmeasured
from seatrial.devices.family import rule_for
from seatrial.devices.gate import Decision, Rule, Verdict, judge, without_comparison

STILL = [0.0001, -0.0001, 0.0, 0.0001, -0.0001]
RULE = rule_for(True, 0.01, None, 2)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "lease"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`truth(0.08)`: every comparison finds a slowdown of 8 %, without launches."""

    def decide(slower: float) -> None:
        def found(sitting: object, base: object, candidate: object, rule: Rule) -> Decision:
            return judge([slower + x for x in STILL], STILL, replace(rule, looks=RULE.looks), 0)

        monkeypatch.setattr("seatrial.devices.compare.decide", found)
        monkeypatch.setattr("seatrial.devices.compare._profile", lambda *_: None)

    return decide


def toml(text: str) -> None:
    Path("seatrial.toml").write_text(text)


def two() -> None:
    for name in ("base", "a", "b"):
        if not Path(name).exists():
            tiny.write_bundle(Path(name))
    toml('[compare]\ndetect = "4%"\n[compare.one]\nbase = "base"\ncandidate = "a"\n[compare.two]\nbase = "base"\n'
         'candidate = "b"\ndetect = "20%"\ntolerate = 0.1\nthreads = 2\n')  # fmt: skip


def test_entries_have_their_own_margins_and_the_command_line_overrules(main, truth):
    two()
    truth(0.05)
    done = main("compare", "--json", "r.json")
    assert done.code == 1 and "one: REGRESS" in done.out and "two: PASS" in done.out
    assert "2 benchmarks: 1 REGRESS, 1 PASS" in done.out and "2 benchmarks share the 1.0% of false alarms" in done.out
    one, other = (each["comparison"] for each in json.loads(Path("r.json").read_text())["benchmarks"])
    assert (one["rule"]["tolerate"], one["rule"]["detect"], one["rule"]["family"]) == (0.01, 0.04, 2)
    assert (other["rule"]["tolerate"], other["rule"]["detect"]) == (0.1, 0.2)
    assert (one["base"]["arm"]["settings"]["threads"], other["base"]["arm"]["settings"]["threads"]) == (1, 2)
    done = main("compare", "--tolerate", "7%", "--detect", "9%", "--only", "two", "--json", "r.json")
    assert done.code == 0 and "one:" not in done.out
    (one,) = json.loads(Path("r.json").read_text())["benchmarks"]
    assert (one["comparison"]["rule"]["tolerate"], one["comparison"]["rule"]["family"]) == (0.07, 1)
    words = "seatrial compare --only two --tolerate 7% --detect 9% --threads 2 --seed "
    assert one["reproduce"].startswith(words)


def test_the_command_that_repeats_an_entry_leaves_to_the_file_what_only_the_file_may_say(main, truth):
    two()
    toml('[compare]\ntarget = "onnxruntime"\n' + Path("seatrial.toml").read_text().replace("[compare]\n", ""))
    truth(0.05)
    main("compare", "--json", "r.json")
    words = json.loads(Path("r.json").read_text())["benchmarks"][0]["reproduce"].split()
    assert "--target" not in words
    done = main(*words[1:])
    assert done.code == 1 and "REGRESS" in done.out


def test_a_model_has_a_benchmark_for_each_target_and_precision():
    toml('[compare.m]\nmodel = "m.onnx"\ntarget = ["tflite", "openvino"]\nprecision = "fp32,int8"\nbase-ref = "main"\n'
         '[compare.lone]\nmodel = "m.onnx"\narg = ["a=1", "b=2"]\nembed-preprocessing = true\n')  # fmt: skip
    found = entries()
    assert found[0].names == ["m/tflite-fp32", "m/tflite-int8", "m/openvino-fp32", "m/openvino-int8"]
    assert found[1].names == ["lone"] and found[1].params["arg"] == ("a=1", "b=2")
    assert found[1].params["embed_preprocessing"] is True
    assert only(found, ["m/tflite-int8", "lone"]) == ["m/tflite-int8", "lone"]
    assert len(only(found, ["m"])) == 4
    with pytest.raises(UsageError, match="no benchmark has that name"):
        only(found, ["x"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'm'", "did you mean 'model'"),
        ("candidate = 'a'\ntolerate = 5", "5% or 0.05"),
        ("candidate = 'a'\nthreads = 0", "--threads"),
        ("model = 'a'\nallow-mismatch = 'yes'", "write true or false"),
        ("model = 'a'\ncandidate = 'b'", "it has both"),
        ("target = 'tflite'", "nothing to measure"),
        ("candidate = 'a'", "no baseline is named"),
        ("candidate = 'a'\nbase = 'b'\nbase-ref = 'main'", "base and base-ref"),
    ],
)
def test_an_entry_that_is_wrong_is_refused(text, words, main):
    toml(f"[compare.x]\n{text}\n")
    main("compare").fails(2, words, "[compare.x] of seatrial.toml")


def test_nothing_to_compare_exits_4(main):
    main("compare").fails(4, "there is nothing to compare", "[compare.NAME]")
    toml("[compare]\nquick = true\n")
    main("compare").fails(4, "there is nothing to compare")


def test_a_new_one_fails_unless_that_is_allowed_and_another_was_compared(main, truth):
    two()
    truth(0.0)
    toml(Path("seatrial.toml").read_text() + "[compare.new]\nbase = 'absent'\ncandidate = 'a'\n")
    assert main("compare").code == 4
    done = main("compare", "--allow-new", "--junit", "r.xml")
    assert done.code == 0 and "left out of the verdict by --allow-new: new" in done.out
    assert [case[0].tag for case in ElementTree.parse("r.xml").getroot()[0]][-1] == "skipped"
    assert main("compare", "--allow-new", "--only", "new").code == 4


def benchmark(name: str, decision: Decision, **more: Any) -> Benchmark:
    return Benchmark(name, unmeasured("base", name, decision, RULE), f"seatrial compare --only {name}", **more)


def all_verdicts() -> list[Benchmark]:
    red = judge([0.08 + x for x in STILL], STILL, RULE, 0)
    return [
        benchmark("green", judge(STILL, STILL, RULE, 0)),
        benchmark("red|<x>", red),
        benchmark("known", red, accepted=True, note="accepted until 2026-12-24: reasons"),
        benchmark("open\x00", Decision(Verdict.INCONCLUSIVE, "neither")),
        benchmark("noisy", Decision(Verdict.INVALID, "too noisy")),
        benchmark("new", without_comparison("no base", baseline=False)),
        benchmark("gone", without_comparison("segfault")),
    ]


def test_the_worst_verdict_decides():
    by = {one.name: one for one in all_verdicts()}
    for names, code, strict in (
        (["green", "known"], 0, 0),
        (["green", "open\x00"], 0, 3),
        (["open\x00", "noisy"], 4, 4),
        (["noisy", "red|<x>", "gone"], 1, 1),
        (["new", "green"], 4, 4),
        (["gone", "known"], 4, 4),
        ([], 4, 4),
    ):
        chosen = [by[name] for name in names]
        assert (Run(chosen).exit_code, Run(chosen, strict=True).exit_code) == (code, strict), names


def test_junit_shows_only_what_is_green_as_passed():
    cases = {strict: ElementTree.fromstring(gate_reports.junit(Run(all_verdicts(), strict)))[0] for strict in (0, 1)}
    tags = {s: [case[0].tag if case[0].tag != "system-out" else "" for case in suite] for s, suite in cases.items()}
    assert tags[0] == ["", "failure", "", "skipped", "error", "error", "error"]
    assert tags[1] == ["", "failure", "", "failure", "error", "error", "error"]
    suite = cases[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["7", "1", "3", "1"]
    assert suite[3].get("name") == "open?" and "accepted until" in (suite[2][0].text or "")
    assert "reproduce: seatrial compare --only" in (suite[1][0].text or "")


def test_markdown_and_words_tell_each_verdict():
    run = Run(all_verdicts())
    text, words = gate_reports.markdown(run), "\n".join(gate_text.report(run))
    assert text.startswith("### Latency: failed\n") and "| green | PASS | 1.000 [" in text
    assert "| red\\|&lt;x> | **REGRESS** | 1.083 [" in text and "**REGRESS, accepted**" in text
    assert "accepted until 2026-12-24: reasons" in text and "accepted until 2026-12-24: reasons" in words
    assert "NOT GREEN" in text and "NOT GREEN" in words
    assert """seatrial compare accept 'red|<x>' --up-to 8.4% --base ''""" in text
    assert "2 benchmarks share the 1.0% of false alarms (Holm): the middle one proves" in text
    assert "7 benchmarks: 1 PASS, 1 REGRESS, 1 REGRESS, accepted, 1 INCONCLUSIVE" in words
    undecided = gate_reports.markdown(Run([all_verdicts()[3]]))
    assert undecided.startswith("### Latency: NOT GREEN")


def test_github_benchmark_takes_what_was_measured(main, truth):
    two()
    truth(0.0)
    assert json.loads(gate_reports.github_benchmark(Run(all_verdicts()))) == []
    names = ("r.json", "r.xml", "r.md", "g.json")
    options = ("--json", "--junit", "--markdown", "--github-benchmark")
    Path("r.md").write_text("before\n")
    assert main("compare", *(word for pair in zip(options, names, strict=True) for word in pair)).code == 0
    assert Path("r.md").read_text().startswith("before\n### Latency: no slowdown")
    assert ElementTree.parse("r.xml").getroot()[0].get("tests") == "2"
    assert json.loads(Path("g.json").read_text()) == []  # no launches, no figures
    main("compare", "--junit", "absent/r.xml").fails(5, "absent/r.xml")


def test_an_accepted_slowdown_is_green_until_it_expires(main, truth):
    for name in ("base", "a"):
        tiny.write_bundle(Path(name))
    toml('[compare.one]\nbase = "base"\ncandidate = "a"\n')
    truth(0.08)
    red = main("compare")
    assert red.code == 1
    line = next(line for line in red.out.splitlines() if line.startswith("accept it: seatrial "))
    words = line.removeprefix("accept it: seatrial ").replace('"..."', "why").split()
    done = main(*words, "--days", "14")
    assert done.code == 0 and f"until {today() + timedelta(days=14)}" in done.out, done.err
    green = main("compare")
    assert green.code == 0 and green.out.startswith("REGRESS, accepted") and ": why" in green.out
    truth(0.12)
    assert main("compare").code == 1
    truth(0.08)
    file = Path("seatrial.accept.toml")
    over = today() - timedelta(days=1)
    file.write_text(file.read_text().replace(f"until = {today() + timedelta(days=14)}", f"until = {over}"))
    late = main("compare")
    assert late.code == 1 and f"expired on {over} (why)" in late.out
    file.write_text("[[accept]]\nbenchmark = 1\n")
    main("compare").fails(2, "seatrial.accept.toml", "missing key")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["one", "--reason", "x"], "--up-to"),
        (["one", "--up-to", "8%"], "--reason"),
        (["one", "--up-to", "8", "--reason", "x"], "8% or"),
        (["one", "--up-to", "0%", "--reason", "x"], "accepts nothing"),
        (["one", "--up-to", "8%", "--reason", " "], "it is empty"),
        (["one", "--up-to", "8%", "--reason", "x", "--until", "2020-01-01"], "that day is over"),
        (["one", "--up-to", "8%", "--reason", "x", "--until", "2999-01-01", "--days", "3"], "both are given"),
        (["onne", "--up-to", "8%", "--reason", "x"], "known: one"),
    ],
)
def test_accept_refuses_what_it_cannot_mean(words, found, main):
    toml('[compare.one]\nbase = "base"\ncandidate = "a"\n')
    done = main("compare", "accept", *words)
    assert done.code == 2 and found.replace("8% or", "5% or") in done.err
    assert not Path("seatrial.accept.toml").exists()
