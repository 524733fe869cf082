"""Accuracy's verdict counts samples: floats must not decide what is exactly at the limit."""

from __future__ import annotations

import numpy as np
import pytest
from seatrial.exporter.proof.accuracy import score


def answers(right: int, n: int) -> list[dict[str, np.ndarray]]:
    return [{"y": np.array([[0.0, 1.0] if i < right else [1.0, 0.0]])} for i in range(n)]


@pytest.mark.parametrize("n", [100, 200, 300, 400, 500, 1000])
def test_the_allowed_drop_itself_passes_and_one_more_fails(n: int) -> None:
    before, allowed = n * 9 // 10, n // 100
    at = score("y", [1] * n, answers(before, n), answers(before - allowed, n), 0.01)
    more = score("y", [1] * n, answers(before, n), answers(before - allowed - 1, n), 0.01)
    assert not at.failed and more.failed


def test_twenty_samples_resolve_no_hundredth_but_a_collapse_fails() -> None:
    one = score("y", [1] * 20, answers(18, 20), answers(17, 20), 0.01)
    assert not one.resolved and not one.failed and "can't resolve" in one.note
    assert score("y", [1] * 20, answers(18, 20), answers(9, 20), 0.01).failed
