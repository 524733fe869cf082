"""Results as pandas data frames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingPart

if TYPE_CHECKING:
    from .launches import Launch
    from .results import ArmSummary


def frame(rows: Sequence[dict[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` of rows.

    Raises:
        MissingPart: pandas isn't installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPart("a pandas data frame", "pandas is not installed", "pip install pandas") from error
    return pandas.DataFrame(rows)


def arm_row(arm: ArmSummary) -> dict[str, Any]:
    """An arm's figures, flat."""
    found, one = arm.latency, arm.arm
    row: dict[str, Any] = {
        "model": one.name,
        "target": one.target,
        "version": arm.version,
        "status": arm.status,
        "reason": arm.reason,
        "threads": one.settings.get("threads"),
        "batch": one.batch,
        "streams": one.streams,
        "precision": arm.ran_precision,
        "latency_ms": found.centre if found else None,
        "latency_low_ms": found.low if found else None,
        "latency_high_ms": found.high if found else None,
        "confidence": found.confidence if found else None,
        **arm.samples_ms,
        "load_ms": arm.load_ms,
        "first_ms": arm.first_ms,
        "peak_rss_bytes": arm.peak_rss_bytes,
        "gpu_bytes": sum(arm.gpu_bytes.values()) or None,
        "spread": arm.spread,
        "per_s": arm.throughput.centre if arm.throughput else None,
        "per_s_low": arm.throughput.low if arm.throughput else None,
        "per_s_high": arm.throughput.high if arm.throughput else None,
        "limit": arm.limit,
        "launches": arm.launches,
        "samples": arm.samples,
    }
    row |= {f"p{p.percent:g}_ms": p.ms for p in arm.percentiles}
    if arm.late:
        row |= {"late": arm.late.share.centre, "late_low": arm.late.share.low, "late_high": arm.late.share.high}
    return row


def sample_rows(launches: Sequence[Launch]) -> Iterator[dict[str, Any]]:
    """Every timed inference."""
    for launch in launches:
        for name, run in launch.arms.items():
            for block, samples in enumerate(run.blocks):
                for i, ns in enumerate(samples):
                    yield {"launch": launch.index, "model": name, "round": block, "iteration": i, "ms": ns / 1e6}
