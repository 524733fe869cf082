"""The report's tables, sections and list of confirmed comparisons, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from . import report_plot
from .candidate import place_of
from .report_figure import Figure, Key
from .report_text import (
    COLOURS,
    by_id,
    bytes_text,
    evaluated,
    finite,
    full_name,
    interval_text,
    ms_text,
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
WORDS = {"faster": "the first is faster", "slower": "the second is faster", "open": "no difference decided"}
FIGURES = ("latency, ms", "accuracy", "agreement", "SQNR, dB", "size")


def chosen_table(study: Study) -> str:
    """The chosen candidate of each target with its bundle's folder."""
    candidates, rows = by_id(study), []
    for target, pick in study["chosen"].get("per_target", {}).items():
        candidate = candidates.get(pick["id"])
        if candidate is None:
            continue
        best = ' <b class="badge best">over all</b>' if candidate["id"] == study["chosen"].get("overall") else ""
        cells = [
            cell("target", dot(study, candidate) + escape(target_text(target)) + best),
            cell("bundle", f"<code>{escape(str(pick['bundle']))}</code>"),
            cell("precision", escape(ran(candidate))),
            cell("settings", escape(settings_text(candidate["settings"]))),
            *_figures(study, candidate),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    if not rows:
        return '<p class="empty">No bundle was packed.</p>'
    heads = ["target", "bundle", "precision that ran", "settings", *FIGURES]
    return table(heads, rows, "chosen")


def candidates_table(study: Study) -> str:
    """Every candidate with its figures and its outcome: fit ones first, fast ones first."""
    if not study["candidates"]:
        return '<p class="empty">No candidate was tried.</p>'
    rows = []
    for candidate in sorted(study["candidates"], key=_order):
        words = escape(f"{target_text(candidate['target'])} {ran(candidate)}")
        name = f"{dot(study, candidate)}<b>{words}</b>"
        small = f"<small>{escape(settings_text(candidate['settings']))}</small>"
        cells = [
            cell("candidate", name + small),
            *_figures(study, candidate),
            cell("outcome", _outcome(study, candidate)),
        ]
        rows.append(f'<tr id="c-{escape(candidate["id"])}" class="{escape(candidate["status"])}">{"".join(cells)}</tr>')
    return table(["candidate", *FIGURES, "outcome"], rows, "all sortable")


def comparison_list(study: Study) -> str:
    """Each confirmed pair with its interval drawn on one common log scale around 1."""
    pairs, candidates = study["comparisons"], by_id(study)
    if not pairs:
        return '<p class="empty">Nothing was compared in a fresh session.</p>'
    reach = max(1.1, *(max(pair["high"], 1 / pair["low"]) for pair in pairs)) ** 1.08
    rows = []
    for pair in pairs:
        names = [full_name(candidates[key]) if key in candidates else key for key in (pair["a"], pair["b"])]
        start, middle, end = (report_plot.log_share(pair[key], reach) for key in ("low", "ratio", "high"))
        ratio, low, high = ratio_texts(pair)
        kind = "faster" if pair["high"] < 1 else "slower" if pair["low"] > 1 else "open"
        rows.append(
            f'<li class="{kind}"><p>{escape(names[0])} <span>against</span> {escape(names[1])}</p>'
            f'<div class="range" role="img" aria-label="{escape(pair["text"])}" title="{escape(pair["text"])}">'
            f'<i style="left:{start:.1f}%;width:{end - start:.1f}%"></i>'
            f'<b style="left:{middle:.1f}%"></b></div>'
            f"<p><strong>{ratio} ×</strong> <small>{low} to {high}</small><br>{WORDS[kind]}</p></li>"
        )
    return f'<ul class="pairs">{"".join(rows)}</ul>'


def confirmed(study: Study) -> str:
    """The section on what was compared in a fresh session."""
    words = (
        "Time of the first over time of the second, measured interleaved, anew. Left of the dashed line the first is "
        "faster; an interval that touches the line decides nothing."
    )
    return section("Confirmed in a fresh session", words, comparison_list(study))


def section(title: str, words: str, body: str) -> str:
    """One section of the page; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>\n<p>{escape(words)}</p>\n{body}</section>"


def twice(figure: Figure) -> str:
    """A picture for a wide and for a narrow screen, with its legend above and its caption below."""
    (wide, high), (narrow, tall) = figure.sizes
    keys = "".join(_key(key) for key in figure.keys)
    drawn = f'<div class="wide">{figure.draw(wide, high)}</div><div class="narrow">{figure.draw(narrow, tall)}</div>'
    caption = f"<p class='caption'>{escape(figure.caption)}</p>" if figure.caption else ""
    return f'<div class="legend">{keys}</div>{drawn}{caption}'


def _key(key: Key) -> str:
    if key.kind == "glyph":
        return f"<span>{glyph(key.precision)}{escape(key.text)}</span>"
    kind = f"dot t{key.colour}" if key.kind == "dot" else key.kind
    return f'<span><i class="{kind}"></i>{escape(key.text)}</span>'


def _order(candidate: Candidate) -> tuple[int, float]:
    latency = candidate.get("latency_ms")
    kinds = ("ok", "infeasible", "failed")
    kind = kinds.index(candidate["status"]) if candidate["status"] in kinds else len(kinds)
    return kind, latency if finite(latency) else float("inf")


def _outcome(study: Study, candidate: Candidate) -> str:
    """A badge and the reason in words."""
    if candidate["id"] == study["chosen"].get("overall"):
        badge = '<b class="badge best">chosen over all</b>'
    elif candidate["chosen"]:
        badge = '<b class="badge pick">chosen</b>'
    elif candidate["status"] != "ok":
        badge = f'<b class="badge {escape(candidate["status"])}">{escape(status_text(candidate["status"]))}</b>'
    elif candidate["front"]:
        badge = '<b class="badge front">on the front</b>'
    else:
        badge = ""
    launches = candidate.get("launches") or 0
    reason = f"<span>{escape(candidate['reason'])}</span>" if candidate.get("reason") else ""
    timed = f"{launches} launch{'' if launches == 1 else 'es'}" if launches else "not timed"
    return f"{badge}{reason}<small><code>{escape(candidate['id'][:10])}</code> · {timed}</small>"


def _figures(study: Study, candidate: Candidate) -> list[str]:
    """The five cells of figures that both tables share."""
    latency, counted = candidate.get("latency_ms"), share_of(candidate.get("accuracy"), evaluated(study))
    accuracy, confirmed = percent_text(candidate.get("accuracy")), candidate.get("confirmed_accuracy")
    if finite(confirmed):
        counted = ", ".join(part for part in (counted, f"confirmed {percent_text(confirmed)}") if part)
    db, size = candidate.get("sqnr_db"), candidate.get("size_bytes")
    return [
        cell("latency, ms", with_small(ms_text(latency), interval_text(candidate)), latency),
        cell("accuracy", with_small(accuracy, counted), candidate.get("accuracy")),
        cell("agreement", escape(percent_text(candidate.get("agreement"))), candidate.get("agreement")),
        cell("SQNR, dB", f"{db:.1f}" if finite(db) else "–", db),
        cell("size", escape(bytes_text(size)), size),
    ]


def with_small(figure: str, small: str) -> str:
    """A figure with what belongs to it below it."""
    return f"{escape(figure)}<small>{escape(small)}</small>" if small else escape(figure)


def cell(name: str, html: str, figure: object = "") -> str:
    """One cell of finished HTML; `figure` is what a column of numbers is sorted by, None (not known) last."""
    if figure == "":
        return f'<td data-name="{escape(name)}">{html}</td>'
    value = repr(figure) if finite(figure) else ""
    known = "" if value else " none"
    return f'<td class="number{known}" data-name="{escape(name)}" data-value="{value}">{html}</td>'


def table(heads: Iterable[str], rows: Sequence[str], kind: str, numbers: Iterable[str] = FIGURES) -> str:
    """A table; columns of `numbers` are aligned to the right, and sorted as such."""
    right = set(numbers)

    def head(name: str) -> str:
        number = ' class="number"' if name in right else ""
        return f'<th scope="col"{number}>{escape(name)}</th>'

    line = "".join(head(name) for name in heads)
    inner = f"<thead><tr>{line}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inner}</table></div>'


def dot(study: Study, candidate: Candidate) -> str:
    """The marker of a candidate's precision in the colour of where it runs."""
    colour = places_of(study).index(place_of(candidate)) % COLOURS
    out = " out" if candidate["status"] != "ok" else ""
    return f'<span class="t{colour}{out}">{glyph(candidate["precision"])}</span>'


def glyph(precision: str) -> str:
    """The marker of a precision, small, in the colour of what stands around it."""
    shape = report_plot.marker(report_plot.shape_of(precision), 8, 8, 5.2, 'class="mark"')
    return f'<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true">{shape}</svg>'


def ran(candidate: Candidate) -> str:
    """The precision that was asked for, and the one that ran where the runtime named another."""
    found = candidate.get("ran_precision")
    same = {"fp32": "f32", "fp16": "f16"}.get(candidate["precision"], candidate["precision"])
    if not found or found in (same, candidate["precision"]):
        return str(candidate["precision"])
    return f"{candidate['precision']}, ran as {found}"
