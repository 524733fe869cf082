"""What one run of `seatrial compare` found: named comparisons, what was accepted, and one exit code for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..devices.results import Comparison

SCHEMA = "seatrial.gate/1"
EXIT = {"PASS": 0, "REGRESS": 1, "INCONCLUSIVE": 0, "INVALID": 4, "NEW": 4, "MISSING": 4}
EXIT_STRICT = {**EXIT, "INCONCLUSIVE": 3}
WORST = (1, 4, 3, 0)
"""Exit codes from the worst: what is proven, then what wasn't measured, then what isn't known."""


@dataclass(frozen=True)
class Benchmark:
    """One comparison of a run; `reproduce` is the command that repeats it, `note` what its acceptance says."""

    name: str
    comparison: Comparison
    reproduce: str
    accepted: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """Of the comparison, whether accepted or not."""
        return str(self.comparison.verdict)

    @property
    def title(self) -> str:
        """The verdict for a table."""
        return f"{self.verdict}, accepted" if self.accepted else self.verdict

    @property
    def base_id(self) -> str:
        """Content id of the base's artifact; empty where there was none."""
        return self.comparison.base.arm.artifact_id

    @property
    def accept(self) -> str:
        """The command that accepts this slowdown, as large as it may be."""
        import math
        import shlex

        ratio = self.comparison.decision.ratio
        most = f"{math.ceil(1000 * (ratio[2] - 1)) / 10:g}%" if ratio else "?"
        words = ["seatrial", "compare", "accept", self.name, "--up-to", most]
        return shlex.join([*words, "--base", self.base_id]) + ' --reason "..."'


@dataclass(frozen=True)
class Run:
    """All benchmarks of one run."""

    benchmarks: Sequence[Benchmark]
    strict: bool = False
    allow_new: bool = False
    quick: bool = False

    @property
    def exit_code(self) -> int:
        """The worst benchmark's. An accepted REGRESS is green; NEW is left out where that is allowed, but not alone."""
        codes = [code for one in self.benchmarks if (code := self.code(one)) is not None]
        return next((code for code in WORST if code in codes), 4)

    def code(self, one: Benchmark) -> int | None:
        """One benchmark's exit code; None for what may be left out."""
        if one.accepted:
            return 0
        if one.verdict == "NEW" and self.allow_new:
            return None
        return (EXIT_STRICT if self.strict else EXIT)[one.verdict]

    @property
    def family(self) -> int:
        """How many benchmarks share the alpha."""
        return max((one.comparison.rule.family for one in self.benchmarks), default=1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, raw samples and all."""
        return {
            "schema": SCHEMA,
            "exit_code": self.exit_code,
            "strict": self.strict,
            "allow_new": self.allow_new,
            "benchmarks": [
                {
                    "name": one.name,
                    "accepted": one.accepted,
                    "note": one.note,
                    "reproduce": one.reproduce,
                    "comparison": one.comparison.to_dict(),
                }
                for one in self.benchmarks
            ],
        }
