"""Accepted slowdowns: they cover what was accepted, until their day, and say so."""

from __future__ import annotations

import math
from datetime import date, timedelta

import pytest
from seatrial.core.errors import UsageError
from seatrial.devices.accept import Acceptance, append, applied, read
from seatrial.devices.gate import Decision, Verdict
from seatrial.devices.stats import Interval

DAY = date(2026, 11, 24)


def entry(ratio: float = 1.08, until: date = DAY, reason: str = "an attention block", base: str = "") -> Acceptance:
    return Acceptance("lite0", ratio, until, reason, date(2026, 11, 1), base)


def slower(low: float, centre: float) -> Decision:
    log = Interval(math.log(centre), math.log(low), math.log(centre) * 1.2, 12, 0.98, 0.004)
    return Decision(Verdict.REGRESS, "slower", effect=log)


def test_it_covers_until_its_last_day_and_then_says_that_it_is_over():
    good, words = applied([entry()], "lite0", "x", slower(1.05, 1.06), DAY)
    assert good and "accepted until 2026-11-24" in words and "an attention block" in words
    good, words = applied([entry()], "lite0", "x", slower(1.05, 1.06), DAY + timedelta(days=1))
    assert not good and "expired on 2026-11-24" in words and "an attention block" in words


def test_it_covers_what_was_accepted_and_no_more():
    assert applied([entry()], "lite0", "x", slower(1.079, 1.09), DAY)[0]  # not proven to be more
    good, words = applied([entry()], "lite0", "x", slower(1.09, 1.10), DAY)
    assert not good and "proven to be more" in words


def test_it_covers_its_own_base_and_benchmark_and_only_a_regress():
    assert applied([entry(base="x")], "lite0", "x", slower(1.05, 1.06), DAY)[0]
    good, words = applied([entry(base="y")], "lite0", "x", slower(1.05, 1.06), DAY)
    assert not good and "another base" in words
    assert applied([entry()], "other", "x", slower(1.05, 1.06), DAY) == (False, "")
    assert applied([entry()], "lite0", "x", Decision(Verdict.INVALID, "noisy"), DAY) == (False, "")


def test_the_last_entry_counts_and_all_stay(tmp_path):
    file = tmp_path / "seatrial.accept.toml"
    assert read(file) == []
    odd = 'a "quote", a \\ and a\nline, \x7f and ü'
    append(file, entry(reason=odd, base="1a2b"))
    append(file, entry(1.2))
    assert read(file) == [entry(reason=odd, base="1a2b"), entry(1.2)]
    assert applied(read(file), "lite0", "x", slower(1.15, 1.16), DAY)[0]
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rason = 'x'", "did you mean 'reason'"),
        ("ratio = 0.9", "1.08 for a slowdown of 8 %"),
        ("ratio = '8%'", "1.08 for a slowdown of 8 %"),
        ("until = 'tomorrow'", "until must be a date"),
        ("until = 2026-11-24T10:00:00", "until must be a date"),
        ("reason = ' '", "the reason is empty"),
    ],
)
def test_an_entry_that_is_wrong_is_refused(line, words, tmp_path):
    file = tmp_path / "seatrial.accept.toml"
    key = line.split()[0]
    lines = entry().toml().splitlines()
    file.write_text("\n".join([*(each for each in lines if not each.startswith(f"{key} ")), line]))
    with pytest.raises(UsageError) as error:
        read(file)
    assert words in str(error.value) and "seatrial.accept.toml" in str(error.value)


def test_an_entry_without_a_day_is_refused(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[[accept]]\nbenchmark = 'a'\nratio = 1.1\nreason = 'x'\nmade = 2026-01-01\n")
    with pytest.raises(UsageError, match="missing key 'until'"):
        read(file)
