"""The fixture `seatrial_compare` for a user's own pytest; pytest loads this module by its entry point, nobody else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .arms import Arm
    from .results import Comparison


class NotGreen(UserWarning):
    """A comparison that decided nothing, in a test that passes all the same."""


@pytest.fixture(scope="session")
def seatrial_compare() -> Callable[..., Comparison]:
    """`seatrial_compare(base, candidate, ...)` fails the test where the candidate is proven slower.

    Takes what `seatrial.compare` takes, and `strict`. The test also fails where nothing valid was compared: no base, an
    arm that didn't run, a canary that differs. What was measured and not decided warns, and fails with `strict=True`;
    nothing is ever skipped. Gives the Comparison.
    """

    def check(
        base: str | Path | Arm, candidate: str | Path | Arm, *, strict: bool = False, **options: Any
    ) -> Comparison:
        __tracebackhide__ = True
        from .compare import compare
        from .gate import Verdict

        found = compare(base, candidate, **options)
        if found.verdict == Verdict.PASS:
            return found
        if found.verdict == Verdict.INCONCLUSIVE and not strict:
            warnings.warn(NotGreen(_words(found)), stacklevel=2)
            return found
        pytest.fail(_words(found), pytrace=False)

    return check


def _words(found: Comparison) -> str:
    """The verdict, both times, and which operators ran more or less often."""
    from .compare import differences

    lines = [f"{found.verdict}: {found.decision.reason}"]
    for role, arm in (("base", found.base), ("candidate", found.candidate)):
        time = f"{arm.latency.centre:.3f} ms" if arm.latency else arm.reason or arm.status
        lines.append(f"  {role:9} {arm.arm.name}: {time}")
    for what, one, other in differences(found):
        lines.append(f"  {what}: {one} nodes in the base, {other} in the candidate")
    return "\n".join(lines)
