"""The report of a search: one self-contained HTML page from a study's document, nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from . import report_models, report_one
from .report_figure import Figure
from .report_many import Many
from .report_rows import added_table, trainings_text
from .report_tables import section
from .report_text import COLOURS, finite, seconds_text, target_text, when_text

SCHEMA = "seatrial.study/1"
Study = Mapping[str, Any]


def render(study: Study, added: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as text; every string of the study is shown as text, never as markup.

    Args:
        study: a document; with ``models`` it is one of many models.
        added: the objectives that were added, as from `report_added.rows_of`.

    Raises:
        ValueError: the document has another schema.
    """
    if study.get("schema") != SCHEMA:
        raise ValueError(f"wanted a document with schema {SCHEMA}, got {study.get('schema')!r}")
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    many = Many(study) if "models" in study else None
    headline, lead = report_models.verdict(many) if many else report_one.verdict(study)
    later = [_added(added)] if added else []
    return page.substitute(
        title=escape(f"{study['title']} · seatrial"),
        name=escape(study["title"]),
        kind="model search" if many else "deployment search",
        meta=_meta(study),
        headline=escape(headline),
        lead="".join(f"<p>{escape(sentence)}</p>" for sentence in lead),
        top=report_models.cards(many) if many else f'<dl class="tiles">{report_one.tiles(study)}</dl>',
        notes=_notes(study),
        sections="\n".join(report_models.sections(many, later) if many else report_one.sections(study, later)),
        facts=_facts(study),
        cost=_cost(study) + (f'<p class="caption">{escape(trainings_text(many))}</p>' if many else ""),
        command=escape(study["command"]),
    )


def figures(study: Study) -> dict[str, Figure]:
    """The page's pictures by name."""
    return report_models.figures(Many(study)) if "models" in study else report_one.figures(study)


def _added(added: Sequence[Mapping[str, Any]]) -> str:
    words = "Judged from stored answers; nothing was trained or converted again. Intervals are of 95 %."
    return section("Objectives that were added later", words, added_table(added))


def _meta(study: Study) -> str:
    host = study["host"]
    words = [study["source"]["name"], when_text(study["created"]), host["cpu"], f"{host['cores']} cores"]
    return " · ".join(f"<span>{escape(str(word))}</span>" for word in words)


def _notes(study: Study) -> str:
    notes = study["notes"]
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<aside class="notes" aria-label="Notes"><ul>{items}</ul></aside>'


def _facts(study: Study) -> str:
    host, data = study["host"], study["data"]
    rows = [
        ("CPU", host["cpu"]),
        ("cores given", host["cores"]),
        ("vector flags", ", ".join(host["flags"]) or "none"),
    ]
    rows.append(("system", host["os"]))
    rows += [(target_text(name), version) for name, version in host["runtimes"].items()]
    rows.append(("source", f"{study['source']['name']} ({study['source']['id']})"))
    for kind in ("calibration", "held_out", "evaluate", "confirm"):
        part = data.get(kind)
        if part or kind != "held_out":
            rows.append((f"{kind.replace('_', '-')} data", f"{part['name']}, {part['n']} samples" if part else "none"))
    return "".join(f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(fact))}</dd></div>" for name, fact in rows)


def _cost(study: Study) -> str:
    seconds = {name: float(value) for name, value in study["cost"]["seconds"].items() if finite(value)}
    total = sum(seconds.values())
    if total <= 0:
        return '<p class="empty">No times were kept.</p>'
    bars = "".join(
        f'<i class="s{index % COLOURS}" style="width:{100 * value / total:.2f}%"></i>'
        for index, value in enumerate(seconds.values())
    )
    items = "".join(
        f'<li><i class="s{index % COLOURS}"></i>{escape(name)}<b>{seconds_text(value)}</b></li>'
        for index, (name, value) in enumerate(seconds.items())
    )
    stack = f'<div class="stack" aria-hidden="true">{bars}</div>'
    words = "Finished steps of all runs. measure: each candidate is timed; confirm: the best ones are timed again."
    caption = f'<p class="caption">{words}</p>'
    return f'<p>{seconds_text(total)} in all</p>{stack}<ul class="cost">{items}</ul>{caption}'
