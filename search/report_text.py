"""How the report looks things up in a study and writes its figures and names: pure text, not yet escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeGuard

from .candidate import key_text, place_of

COLOURS = 6  # of the page's palette, --t0 to --t5
TARGETS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "TFLite"}


def finite(value: object) -> TypeGuard[float]:
    """Whether a figure is there: a number that isn't NaN or infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def ms_text(value: object) -> str:
    """Three significant digits: 0.00255, 7.21, 17.6, 103."""
    if not finite(value):
        return "–"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    if 0 < value < 0.1:
        digits = 2 - math.floor(math.log10(value))
    return f"{value:.{digits}f}"


def ratio_texts(pair: Mapping[str, Any]) -> tuple[str, str, str]:
    """Ratio, low and high with two digits, with three where two would hide on which side of 1 they are."""
    figures = (pair["ratio"], pair["low"], pair["high"])
    digits = 3 if any(abs(figure - 1) < 0.05 for figure in figures) else 2
    ratio, low, high = (f"{figure:.{digits}f}" for figure in figures)
    return ratio, low, high


def when_text(created: str) -> str:
    """`2026-11-24 08:10`, with the time zone where one is given; other text stays as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def interval_text(candidate: Mapping[str, Any]) -> str:
    """`7.10 to 7.35`, or nothing."""
    low, high = candidate.get("latency_low_ms"), candidate.get("latency_high_ms")
    return f"{ms_text(low)} to {ms_text(high)}" if finite(low) and finite(high) else ""


def percent_text(value: object) -> str:
    """A share as a percentage with one digit."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if finite(value) else "–"


def share_of(value: object, n: int | None) -> str:
    """`18 of 20` where the share comes from so few inputs that the count says more."""
    if not finite(value) or not n or n > 1000 or abs(value * n - round(value * n)) > 0.01:
        return ""
    return f"{round(value * n)} of {n}"


def bytes_text(value: object) -> str:
    """Decimal megabytes, or kilobytes below one of them."""
    if not finite(value):
        return "–"
    return f"{value / 1e6:.1f}\N{NO-BREAK SPACE}MB" if value >= 1e6 else f"{value / 1e3:.0f}\N{NO-BREAK SPACE}kB"


def seconds_text(value: float) -> str:
    """`4.2 s`, or `3 min 5 s`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s"


def target_text(place: str) -> str:
    """The runtime's own spelling of its name: `OpenVINO`, of one on a device `OpenVINO on one-core`."""
    target, at, device = place.partition("@")
    return TARGETS.get(target, target) + (f" on {device}" if at else "")


def name_of(candidate: Mapping[str, Any]) -> str:
    """`OpenVINO int8`."""
    return f"{target_text(place_of(candidate))} {candidate['precision']}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """`2 threads · graph optimization all`."""
    words = []
    for key, value in settings.items():
        if key == "threads":
            words.append(f"{value} thread{'' if value == 1 else 's'}")
        else:
            words.append(f"{key.replace('_', ' ')} {value}")
    return " · ".join(words)


def full_name(candidate: Mapping[str, Any]) -> str:
    """`OpenVINO int8, 2 threads · inference precision f32`, behind the model's key where a study has several."""
    settings, model = settings_text(candidate["settings"]), candidate.get("model") or ""
    name = f"{key_text(model)} {name_of(candidate)}".strip()
    return f"{name}, {settings}" if settings else name


def status_text(status: str) -> str:
    """The word for a status; `ok` alone would say that it was chosen."""
    return {"ok": "fit"}.get(status, status)


def by_id(study: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The candidates by their id."""
    return {candidate["id"]: candidate for candidate in study["candidates"]}


def best_of(study: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The candidate that was chosen over all, if one was."""
    return by_id(study).get(study["chosen"].get("overall") or "")


def places_of(study: Mapping[str, Any]) -> list[str]:
    """Targets and devices, see `place_of`, in the order in which they first appear: that is their colour."""
    return list(dict.fromkeys(map(place_of, study["candidates"])))


def evaluated(study: Mapping[str, Any]) -> int | None:
    """How many labelled inputs the accuracy comes from."""
    evaluate = study["data"].get("evaluate")
    return evaluate["n"] if evaluate else None
