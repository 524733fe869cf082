"""The report's part on a search over one given model: headline, tiles, the scatter and what they say in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from . import report_plot
from .candidate import place_of
from .report_figure import Figure, Key
from .report_tables import candidates_table, chosen_table, confirmed, section, twice
from .report_text import (
    COLOURS,
    best_of,
    by_id,
    bytes_text,
    evaluated,
    finite,
    full_name,
    interval_text,
    ms_text,
    name_of,
    percent_text,
    places_of,
    ratio_texts,
    settings_text,
    share_of,
    status_text,
    target_text,
)

Study = Mapping[str, Any]
Candidate = Mapping[str, Any]
SIZES = ((1100, 470), (400, 420))


def verdict(study: Study) -> tuple[str, list[str]]:
    """The headline, and the sentences below it, in plain words."""
    best = best_of(study)
    if best is None:
        return "Nothing was chosen", _why_nothing(study)
    headline = f"{name_of(best)}: {ms_text(best['latency_ms'])}\N{NO-BREAK SPACE}ms"
    if finite(best.get("accuracy")):
        headline += f" at {percent_text(best['accuracy'])} accuracy"
    lead = [_accuracy_sentence(study, best), *_against_defaults(study, best)]
    return headline, lead


def _against_defaults(study: Study, best: Candidate) -> list[str]:
    """The hardest comparison with a default, then the hardest with one in fp32 where that is another."""
    times = [time for pair in study["comparisons"] if (time := _time_of(best, pair))]
    if not times:
        return ["It wasn't compared with the defaults in a fresh session."]
    known = by_id(study)
    hardest = max(times, key=lambda time: float(time["ratio"]))
    lead = [_comparison_sentence(study, "the fastest default beside it", hardest)]
    plain = [time for time in times if time["other"] in known and known[time["other"]]["precision"] == "fp32"]
    if plain and hardest not in plain:
        nearest = max(plain, key=lambda time: float(time["ratio"]))
        lead.append(_comparison_sentence(study, "the fastest default in fp32", nearest))
    return lead


def _time_of(best: Candidate, pair: Mapping[str, Any]) -> dict[str, Any] | None:
    """A comparison as time of the chosen one over time of the `other`; None where it isn't about the chosen one."""
    if pair["a"] == best["id"]:
        return {"other": pair["b"], "ratio": pair["ratio"], "low": pair["low"], "high": pair["high"]}
    if pair["b"] == best["id"]:
        return {"other": pair["a"], "ratio": 1 / pair["ratio"], "low": 1 / pair["high"], "high": 1 / pair["low"]}
    return None


def _comparison_sentence(study: Study, role: str, time: Mapping[str, Any]) -> str:
    """What one confirmed comparison says of the chosen one; faster only where the interval decides it."""
    candidate = by_id(study).get(time["other"])
    other = f"{role} ({full_name(candidate) if candidate else time['other']})"
    if time["high"] < 1:
        speed = {"ratio": 1 / time["ratio"], "low": 1 / time["high"], "high": 1 / time["low"]}
        ratio, low, high = ratio_texts(speed)
        return f"{ratio} × as fast as {other}: interval {low} to {high}, in a fresh session."
    ratio, low, high = ratio_texts(time)
    took = f"{ratio} × the time of {other}: interval {low} to {high}, in a fresh session."
    return f"{took} {'It is the slower of the two.' if time['low'] > 1 else 'No difference was decided.'}"


def _why_nothing(study: Study) -> list[str]:
    tried = study["candidates"]
    kinds = Counter(candidate["status"] for candidate in tried).most_common()
    told = ", ".join(f"{count} {status_text(kind)}" for kind, count in kinds) or "none was tried"
    reasons = Counter(candidate["reason"] for candidate in tried if candidate.get("reason")).most_common(1)
    lead = [f"Of {len(tried)} candidates: {told}. The table says why, one by one."]
    return lead + [f"The most frequent reason, {count} of {len(tried)}: {reason}." for reason, count in reasons]


def _accuracy_sentence(study: Study, best: Candidate) -> str:
    n, agreement = evaluated(study), best.get("agreement")
    if not finite(best.get("accuracy")):
        tail = (
            f" It agrees with the source model on {percent_text(agreement)} of the inputs." if finite(agreement) else ""
        )
        why = next((note for note in study["notes"] if note.startswith("accuracy not")), "accuracy not verified")
        return f"{why[0].upper()}{why[1:]}.{tail}"
    counted = share_of(best["accuracy"], n)
    text = f"Right on {counted} labelled inputs" if counted else f"Accuracy {percent_text(best['accuracy'])}"
    source = study.get("reference_accuracy")
    if not finite(source):
        return f"{text}; the source model's own accuracy isn't known."
    drop = source - best["accuracy"]
    if abs(drop) < 1e-9:
        return f"{text}, as many as the source model." if counted else f"{text}, as the source model has."
    way = "below" if drop > 0 else "above"
    return (
        f"{text}: {abs(drop):.3f} {way} the source model, which has {percent_text(source)}; "
        f"a drop of {study['max_drop']:g} was allowed."
    )


def tiles(study: Study) -> str:
    """Four figures of the chosen one; without one, the count of candidates alone."""
    best, tried = best_of(study), study["candidates"]
    tiles = []
    if best is not None:
        tiles.append(("latency", f"{ms_text(best['latency_ms'])}\N{NO-BREAK SPACE}ms", interval_text(best)))
        if finite(best.get("accuracy")):
            source = study.get("reference_accuracy")
            small = f"source model: {percent_text(source)}" if finite(source) else ""
            tiles.append(("accuracy", percent_text(best["accuracy"]), small))
        else:
            tiles.append(("agreement", percent_text(best.get("agreement")), "with the source model"))
        tiles.append(("size", bytes_text(best.get("size_bytes")), _signal(best)))
    good = sum(candidate["status"] == "ok" for candidate in tried)
    failed = sum(candidate["status"] == "failed" for candidate in tried)
    rest = [f"{failed} failed" if failed else "", f"{len(tried) - good - failed} infeasible"]
    small = ", ".join(word for word in rest if word and not word.startswith("0"))
    tiles.append(("candidates", f"{good} of {len(tried)} fit", small or "none failed"))
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(figure)}<small>{escape(small)}</small></dd></div>"
        for name, figure, small in tiles
    )


def _signal(candidate: Candidate) -> str:
    value = candidate.get("sqnr_db")
    return f"{value:.1f} dB SQNR" if finite(value) else ""


def sections(study: Study, added: Sequence[str]) -> list[str]:
    """Of the page, one after the other; `added` are those on objectives that were added later."""
    drawn = figures(study)
    scatter = twice(drawn["front"]) if drawn else '<p class="empty">No candidate has both a latency and a score: '
    return [
        section(
            f"Speed against {_score(study)}",
            "To the left is faster, higher is better. A point leads to its row below.",
            scatter if drawn else scatter + "there is nothing to draw.</p>",
        ),
        section(
            "The bundle for each target",
            "The best candidate of each runtime, packed with its evidence.",
            chosen_table(study),
        ),
        confirmed(study),
        *added,
        section("All candidates", "Every one that was tried, and why it wasn't chosen.", candidates_table(study)),
    ]


def figures(study: Study) -> dict[str, Figure]:
    """The scatter, where there is something to draw."""
    key = _score(study)
    name = "accuracy" if key == "accuracy" else "agreement with the source"
    points = _points(study, key)
    if not points:
        return {}
    lines: list[tuple[float, str]] = []
    floor = None
    if key == "accuracy" and finite(study.get("reference_accuracy")):
        source = study["reference_accuracy"]
        floor = source - study["max_drop"]
        lines = [(source, f"source {percent_text(source)}"), (floor, f"floor {percent_text(floor)}")]

    def draw(width: int, height: int) -> str:
        return report_plot.draw(points, width=width, height=height, score_name=name, lines=lines, floor=floor)

    lost = len(study["candidates"]) - len(points)
    caption = ["Bars are intervals of the latency. Markers that would hide each other are moved apart, up or down."]
    if lines:
        caption.append(f"Dashed: {', '.join(text for _, text in lines)}, the lowest {name} allowed.")
    if 'class="down"' in draw(*SIZES[0]):
        caption.append("An arrow marks one that lies farther down.")
    if lost:
        caption.append(f"{lost} of {len(study['candidates'])} have no latency or no {key} and aren't drawn.")
    return {"front": Figure(f"Speed against {key}", draw, _keys(study), " ".join(caption), SIZES)}


def _score(study: Study) -> str:
    """What stands for quality: accuracy where it was found, else agreement with the source."""
    found = {key for key in ("accuracy", "agreement") for each in study["candidates"] if finite(each.get(key))}
    return "agreement" if found == {"agreement"} else "accuracy"


def _points(study: Study, key: str) -> list[report_plot.Point]:
    places, best = places_of(study), study["chosen"].get("overall")
    points = []
    for candidate in study["candidates"]:
        latency = candidate.get("latency_ms")
        if not (finite(latency) and finite(candidate.get(key)) and latency > 0):
            continue
        low, high = candidate.get("latency_low_ms"), candidate.get("latency_high_ms")
        points.append(
            report_plot.Point(
                id=candidate["id"],
                latency_ms=latency,
                low_ms=low if finite(low) and low > 0 else latency,
                high_ms=high if finite(high) and high > 0 else latency,
                score=candidate[key],
                colour=places.index(place_of(candidate)) % COLOURS,
                precision=candidate["precision"],
                label=f"{name_of(candidate)} · {ms_text(latency)} ms",
                tip=_tip(candidate, key),
                feasible=candidate["status"] == "ok",
                front=bool(candidate["front"]),
                chosen=bool(candidate["chosen"]) or candidate["id"] == best,
                best=candidate["id"] == best,
            )
        )
    return points


def _tip(candidate: Candidate, key: str) -> str:
    lines = [name_of(candidate), settings_text(candidate["settings"])]
    lines.append(f"{ms_text(candidate['latency_ms'])} ms ({interval_text(candidate)})")
    lines.append(f"{key} {percent_text(candidate[key])}")
    if candidate.get("reason"):
        lines.append(candidate["reason"])
    return "\n".join(line for line in lines if line)


def _keys(study: Study) -> list[Key]:
    keys = [Key("dot", target_text(place), index % COLOURS) for index, place in enumerate(places_of(study))]
    precisions = dict.fromkeys(candidate["precision"] for candidate in study["candidates"])
    keys += [Key("glyph", precision, precision=precision) for precision in precisions]
    keys.append(Key("ringed", "chosen"))
    if sum(bool(candidate["front"]) for candidate in study["candidates"]) > 1:
        keys.append(Key("stroke", "front"))
    if any(candidate["status"] == "infeasible" for candidate in study["candidates"]):
        keys.append(Key("hollow", "infeasible"))
    return keys
