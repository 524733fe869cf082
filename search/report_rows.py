"""The tables of the report of many models: models, their deployments, objectives that were added, trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .candidate import key_text, place_of
from .report_many import CHOSEN, FRONT, MOST, ORDER, OUT, TIE, Many, count_text, figure, span_text, title_of
from .report_tables import cell, glyph, ran, table, with_small
from .report_text import COLOURS, finite, ms_text, name_of, percent_text, settings_text, target_text

RANKS = "to see whether inherited weights rank models as own ones do"
BADGES = {CHOSEN: ("pick", "chosen"), FRONT: ("front", "on the front"), TIE: ("tie", "not decided")}


def models_table(many: Many) -> str:
    """Every model: what it is, what it costs, its fastest deployment on each target, and what became of it."""
    fastest: dict[tuple[str, str], float] = {}
    standing: dict[str, str] = {}
    reasons: dict[str, dict[str, str]] = {}
    for c in many.ranked(many.candidates):
        here, ms = (c["model"], place_of(c)), c["latency_ms"]
        if finite(ms) and c["status"] == "ok":
            fastest[here] = min(ms, fastest.get(here, ms))
        standing.setdefault(c["model"], many.standing(c))
        if c.get("reason"):
            words = f"{name_of(c)}: {c['reason']}"
            reasons.setdefault(c["model"], {}).setdefault(place_of(c), words)
    rows = []
    least = {model: ms for (model, _), ms in sorted(fastest.items(), key=lambda each: -each[1])}
    linked = {c["model"] for c in many.candidates if c["id"] in many.shown}
    failed = {key for key, one in many.models.items() if one["status"] != "ok"}
    most = max(MOST, len(linked))

    def place(key: str) -> tuple[Any, ...]:
        return (key not in linked, ORDER.index(standing.get(key, OUT)), key in failed, least.get(key, math.inf))

    order = sorted(many.models, key=place)
    for key in order[:most]:
        one = many.models[key]
        head = f"<code>{escape(key_text(key))}</code><small>{escape(many.values_text(key))}</small>"
        cells = [
            cell("model", head),
            cell("accuracy", escape(percent_text(one["accuracy"])), one["accuracy"]),
            cell("MACs", escape(_count(one["macs"])), one["macs"]),
            cell("parameters", escape(_count(one["parameters"])), one["parameters"]),
            *(_time(place, fastest.get((key, place))) for place in many.colours),
            cell("outcome", _outcome(one, standing.get(key, OUT), list(reasons.get(key, {}).values()))),
        ]
        rows.append(f'<tr id="m-{escape(key)}" class="{escape(one["status"])}">{"".join(cells)}</tr>')
    if not rows:
        return '<p class="empty">No model was tried.</p>'
    times = [f"{target_text(place)}, ms" for place in many.colours]
    heads = ["model", "accuracy", "MACs", "parameters", *times, "outcome"]
    return table(heads, rows, "all models sortable", heads[1:-1]) + _rest(min(len(order), most), len(order), "models")


def _time(place: str, ms: float | None) -> str:
    return cell(f"{target_text(place)}, ms", escape(ms_text(ms)), ms)


def _count(value: object) -> str:
    return count_text(value) if finite(value) else "–"


def _outcome(one: Mapping[str, Any], standing: str, reasons: Sequence[str]) -> str:
    if one["status"] != "ok":
        kind = f" ({one['kind']})" if one.get("kind") not in (None, "error") else ""
        return f'<b class="badge failed">failed{escape(kind)}</b><span>{escape(str(one["reason"]))}</span>'
    parts = [_badge(standing)]
    if standing not in (CHOSEN, FRONT):
        parts += [f"<small>{escape(reason)}</small>" for reason in reasons]
    if one.get("trained"):
        seconds = f", {one['seconds']:.3g} s" if finite(one.get("seconds")) and one["seconds"] else ""
        parts.append(f"<small>weights: {escape(one['trained'])}{seconds}</small>")
    return "".join(parts)


def _badge(standing: str) -> str:
    kind, text = BADGES.get(standing, ("", ""))
    return f'<b class="badge {kind}">{text}</b>' if text else ""


def deployments_table(many: Many) -> str:
    """Every deployment with its figures: the chosen ones first, then the fronts, then the undecided ones."""
    if not many.candidates:
        return '<p class="empty">Nothing was deployed.</p>'
    names = list(dict.fromkeys([*many.goals, *(bound.name for bound in many.bounds), "latency_ms", "size_bytes"]))
    rows = []
    shown = [c for c in many.candidates if c["id"] in many.shown]
    for c in many.ranked(shown):
        standing = many.standing(c)
        out = " out" if standing == OUT else ""
        mark = f'<span class="t{many.colours.index(place_of(c)) % COLOURS}{out}">{glyph(c["precision"])}</span>'
        words = f"{target_text(place_of(c))} {ran(c)}"
        link = f'<a href="#m-{escape(c["model"])}"><code>{escape(key_text(c["model"]))}</code></a>'
        small = f"<small>{link} · {escape(settings_text(c['settings']))}</small>"
        cells = [cell("candidate", f"{mark}<b>{escape(words)}</b>{small}")]
        cells += [_value(many, c, name) for name in names]
        launches = c.get("launches") or 0
        timed = f"{launches} launch{'' if launches == 1 else 'es'}" if launches else "not timed"
        badge = _badge(standing) or (
            f'<b class="badge failed">{escape(c["status"])}</b>' if c["status"] != "ok" else ""
        )
        reason = "" if standing == FRONT or not c.get("reason") else f"<span>{escape(c['reason'])}</span>"
        cells.append(cell("outcome", f"{badge}{reason}<small><code>{escape(c['id'][:10])}</code> · {timed}</small>"))
        rows.append(f'<tr id="c-{escape(c["id"])}" class="{escape(c["status"])}">{"".join(cells)}</tr>')
    heads = ["deployment", *(title_of(name) for name in names), "outcome"]
    return table(heads, rows, "all sortable", heads[1:-1]) + _rest(len(shown), len(many.candidates), "deployments")


def _value(many: Many, candidate: Mapping[str, Any], name: str) -> str:
    value, small = many.value(candidate, name), span_text(name, many.interval(candidate, name))
    if name == "accuracy" and finite(candidate.get("confirmed_accuracy")):
        confirmed = f"confirmed {percent_text(candidate['confirmed_accuracy'])}"
        small = f"{small}, {confirmed}" if small else confirmed
    return cell(title_of(name), with_small(figure(name, value), small), value)


def _rest(shown: int, n: int, what: str) -> str:
    if n <= shown:
        return ""
    told = f"{shown:,} of {n:,} {what} are shown. All of them: <code>seatrial study export DIR --csv FILE</code>"
    return f'<p class="caption">{told}</p>'


def added_table(added: Sequence[Mapping[str, Any]]) -> str:
    """The objectives that were added later, each with who is best by it, and the winner of the search beside it.

    Args:
        added: as from `report_added.rows_of`.
    """
    rows = []
    for each in added:
        value, old = each["value"], each["old"]
        against = "it is the winner of the search" if each["same"] else (_span(old) if old else "not known")
        rows.append(
            "<tr>"
            + cell("objective", f"<b>{escape(each['name'])}</b><small>{escape(each['text'])}</small>")
            + cell("best by it", escape(each["best"] or "nobody"))
            + cell("its value", escape(_span(value)) if value else "–", value["value"] if value else None)
            + cell("winner of the search", escape(against))
            + cell("difference", escape(_difference(each)))
            + "</tr>"
        )
    heads = ["objective", "best by it", "its value", "winner of the search", "difference"]
    return table(heads, rows, "chosen added", ["its value"])


def _span(value: Mapping[str, Any]) -> str:
    low, high = value["low"], value["high"]
    return f"{value['value']:.4g}" + (f" [{low:.4g}, {high:.4g}]" if finite(low) and finite(high) else "")


def _difference(each: Mapping[str, Any]) -> str:
    found = each["difference"]
    if not found or each["same"]:
        return "–"
    decided = finite(found["low"]) and (found["low"] > 0 or found["high"] < 0)
    return f"{_span(found)}, {'decided' if decided else 'not decided'}"


def trainings_text(many: Many) -> str:
    """How many trainings the search took, and how many it was spared."""
    words = {"shared": "shared", "to check ranks": RANKS, "of models": "of single models"}
    counted = many.study.get("trainings", {})
    told = [f"{counted[key]} {text}" for key, text in words.items() if counted.get(key)]
    seconds = sum(one["seconds"] for one in many.models.values() if finite(one.get("seconds")))
    text = f"Trainings: {', '.join(told) or 'none'}"
    if counted.get("spared"):
        text += f"; {counted['spared']} spared: those models were timed untrained, and others were trained instead"
    return f"{text}; {seconds:.3g} s for the weights of single models." if seconds else f"{text}."
