"""The report's part on many models: what was chosen for each target, the fronts, all objectives, MACs and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from . import report_parallel, report_scatter
from .candidate import key_text, place_of
from .objectives import BUILT_IN
from .report_figure import Figure, Key
from .report_many import (
    BEHIND,
    CHOSEN,
    FRONT,
    OUT,
    TIE,
    Many,
    disagreement,
    figure,
    logarithmic,
    span_text,
    title_of,
)
from .report_parallel import Line, Scale
from .report_rows import deployments_table, models_table
from .report_scatter import Axis, Mark
from .report_tables import confirmed, section, twice
from .report_text import COLOURS, evaluated, finite, ms_text, name_of, percent_text, settings_text, target_text
from .roster import TUNED

Candidate = Any
SIDES = 6
"""One of so many at each end may be left out of a picture, where it lies far from the others."""
NAMED = 6
"""Those on a front that all have labels, at most."""
REASONS = 20
"""Of failures, at most."""


def verdict(many: Many) -> tuple[str, list[str]]:
    """The headline, and the sentences below it."""
    models = [one for key, one in many.models.items() if not key.endswith(TUNED)]
    failed, tuned = sum(one["status"] != "ok" for one in models), len(many.models) - len(models)
    tried = f"{len(models)} model{'s' * (len(models) != 1)} tried"
    tried += f", {failed} of them failed" if failed else ", none failed"
    tried += f", {tuned} trained further" if tuned else ""
    tried += f"; {len(many.candidates)} deployments of them on {_list(map(target_text, many.colours))}."
    if many.best is None:
        return "Nothing was chosen", [tried]
    goals = dict.fromkeys([*many.goals, "latency_ms"])
    figures = [f"{title_of(n)} {figure(n, many.value(many.best, n))}" for n in goals if _known(many, n)]
    rule = f"Chosen for the {_better(many, many.goals[0])} {title_of(many.goals[0])}"
    rule += f" among those that keep to {_list(map(str, many.bounds))}" if many.bounds else ""
    if len(many.goals) > 1:
        rule += f"; where nobody is proven better, {_list(map(title_of, many.goals[1:]))} decided"
    confirmed = many.best.get("confirmed_accuracy")
    found = f"On data that nothing was chosen by its accuracy is {percent_text(confirmed)}."
    lead = [f"{rule}.", *([found] if finite(confirmed) else []), tried]
    return f"{name_of(many.best)}: {', '.join(figures)}", lead


def _known(many: Many, name: str) -> bool:
    return many.best is not None and many.value(many.best, name) is not None


def _better(many: Many, name: str) -> str:
    return "highest" if many.direction(name) == "max" else "lowest"


def _list(words: Any) -> str:
    *head, last = list(words) or ["nothing"]
    return f"{', '.join(head)} and {last}" if head else last


def cards(many: Many) -> str:
    """What was chosen for each target and device, and those for which nothing was."""
    found = []
    for place in many.places:
        pick = many.study["chosen"].get("per_target", {}).get(place)
        colour = many.colours.index(place) % COLOURS if place in many.colours else 5
        head = f'<h3><i class="dot t{colour}"></i>{escape(target_text(place))}'
        if pick is None or pick["id"] not in many.by_id:
            why = "No model keeps to the constraints here." if many.bounds else "No model was proven and timed here."
            found.append(f'<li class="card empty">{head}</h3><p>{why}</p></li>')
            continue
        candidate = many.by_id[pick["id"]]
        best = ' <b class="badge best">over all</b>' if many.best is candidate else ""
        names = list(dict.fromkeys([*many.goals, "latency_ms"]))
        figures = "".join(
            f"<div><dt>{escape(title_of(name))}</dt><dd>{escape(figure(name, many.value(candidate, name)))}"
            f"<small>{escape(span_text(name, many.interval(candidate, name)))}</small></dd></div>"
            for name in names
        )
        model = candidate["model"]
        link = f'<a href="#m-{escape(model)}"><code>{escape(key_text(model))}</code></a>'
        what = f"<p>{link} {escape(many.values_text(model))}</p>"
        how = f"{candidate['precision']} · {settings_text(candidate['settings'])} · folder {pick['bundle']}"
        found.append(f'<li class="card">{head}{best}</h3><dl>{figures}</dl>{what}<p class="how">{escape(how)}</p></li>')
    return f'<ul class="cards">{"".join(found)}</ul>'


def figures(many: Many) -> dict[str, Figure]:
    """The pictures of a study: the front of each target and device, ``objectives`` and ``macs``."""
    fronts = {f"front-{place}": _front(many, place) for place in many.places}
    found = {**fronts, "objectives": _parallel(many), "macs": _macs(many)}
    return {name: figure for name, figure in found.items() if figure}


def sections(many: Many, added: Sequence[str]) -> list[str]:
    """Of the page, one after the other; `added` are those on objectives that were added later."""
    drawn = figures(many)
    fronts = "".join(f"<h3>{escape(f.title)}</h3>{twice(f)}" for name, f in drawn.items() if name.startswith("front"))
    words = "To the left is faster. Bars are 95 % intervals; a point leads to its row below."
    nothing = '<p class="empty">No model has both a latency and a score: there is nothing to draw.</p>'
    where = "target and device" if any("@" in place for place in many.places) else "target"
    found = [section(f"The front of each {where}", f"{words} {standings_text(many)}.", fronts or nothing)]
    if "objectives" in drawn:
        words = "Each line is a deployment. The better end of each axis is at the top; on a narrow screen, right."
        found.append(section("All objectives at once", words, twice(drawn["objectives"])))
    if "macs" in drawn:
        words = (
            "If MACs foretold latency, each colour would rise along one line. Where it doesn't, only measuring tells."
        )
        body = twice(drawn["macs"]) + _said([escape(line) for line in ranks(many)])
        found.append(section("Latency against MACs", words, body))
    found += [confirmed(many.study), *added]
    reasons = [f"<b>{count} ×</b> {escape(reason)}" for reason, count in failures(many)]
    if reasons:
        more = [f"and {len(reasons) - REASONS} other reasons"] if len(reasons) > REASONS else []
        body = _said([*reasons[:REASONS], *more])
        found.append(section("What failed", "With the reason, the most frequent one first.", body))
    words = "Each with its fastest deployment on each target, and what became of it."
    if evaluated(many.study) and any(finite(one["accuracy"]) for one in many.models.values()):
        words += ' Accuracy is that of the source, on all of "valid"; '
        words += f"deployments are judged on {evaluated(many.study)} examples of it."
    found.append(section("The models", words, models_table(many)))
    words = "Model × target × precision × settings; the chosen ones, the fronts and what isn't decided come first. "
    words += "Confirmed accuracy is that on data that nothing was chosen by. In reasons × 2 stands for two threads."
    found.append(section("Their deployments", words, deployments_table(many)))
    return found


def _said(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<ul class="said">{items}</ul>' if items else ""


def _keys(many: Many, rows: Sequence[Candidate], *more: Key) -> list[Key]:
    places = dict.fromkeys(map(place_of, rows))
    keys = [Key("dot", target_text(p), many.colours.index(p) % COLOURS) for p in places] if len(places) > 1 else []
    keys += [Key("glyph", p, precision=p) for p in dict.fromkeys(c["precision"] for c in rows)]
    return [*keys, *more]


def _front(many: Many, place: str) -> Figure | None:
    """Latency against the score, on one target and device."""
    name = many.score
    rows = [c for c in many.of(place) if many.value(c, "latency_ms") and many.value(c, name) is not None]
    if not rows:
        return None
    labels = _named(many, rows)
    marks = [_mark(many, c, "latency_ms", name, c["id"] in many.shown, c["id"] in labels) for c in rows]
    near = [m for m in marks if m.standing in (CHOSEN, FRONT, TIE)] or marks
    x = _axis(many, "latency_ms", marks, near, lambda m: m.x, "faster ←")
    y = _axis(many, name, marks, near, lambda m: m.y, "", [end for m in marks for end in m.along or ()])
    bounds = [("x" if b.name == "latency_ms" else "y", b.limit) for b in many.bounds if b.name in ("latency_ms", name)]
    steps = set(many.goals) == {"latency_ms", name}

    def draw(width: int, height: int) -> str:
        words = f"{len(marks)} deployments on {target_text(place)}: latency against {title_of(name)}"
        return report_scatter.draw(marks, x, y, width=width, height=height, name=words, steps=steps, bounds=bounds)

    standings = {m.standing for m in marks}
    keys = [Key("ringed", "chosen")] if CHOSEN in standings else []
    keys += [Key("stroke", "front")] if steps else []
    keys += [Key("tied", "not decided against one on the front")] if TIE in standings else []
    keys += [Key("faded", "surpassed")] if BEHIND in standings else []
    keys += [Key("hollow", "can't be chosen")] if OUT in standings else []
    keys += [Key("dash", f"bound: {_list(str(b) for b in many.bounds)}")] if bounds else []
    beyond = sum(x.beyond(m.x) or y.beyond(m.y) for m in marks)
    caption = f"{beyond} of {len(marks)} lie beyond the picture and stand on its edge." if beyond else ""
    title = f"{target_text(place)}: {title_of(name)} against latency"
    return Figure(title, draw, _keys(many, rows, *keys), caption)


def _named(many: Many, rows: Sequence[Candidate]) -> set[str]:
    """Who has a label: the front and the chosen one; of a long front its ends."""
    front = sorted((c for c in rows if many.standing(c) in (CHOSEN, FRONT)), key=lambda c: c["latency_ms"])
    ends = front if len(front) <= NAMED else [front[0], front[-1]]
    return {c["id"] for c in front if c in ends or many.standing(c) == CHOSEN}


def _mark(many: Many, c: Candidate, x: str, y: str, asked: bool, named: bool) -> Mark:
    standing, near = many.standing(c), many.standing(c) in (CHOSEN, FRONT)
    at_x, at_y = many.value(c, x), many.value(c, y)
    return Mark(
        id=c["id"],
        x=at_x or 0.0,
        y=at_y or 0.0,
        colour=many.colours.index(place_of(c)) % COLOURS,
        precision=c["precision"],
        standing=standing,
        tip=tip(many, c) if asked else "",
        label=f"{key_text(c['model'])} {c['precision']}" if named else "",
        across=many.interval(c, x) if near or standing == TIE else None,
        along=many.interval(c, y) if near else None,
    )


def tip(many: Many, c: Candidate) -> str:
    """What a marker says."""
    lines = [many.name(c), many.values_text(c["model"]), settings_text(c["settings"])]
    for name in dict.fromkeys([*many.goals, "latency_ms", "accuracy", "macs"]):
        if many.value(c, name) is not None:
            span = span_text(name, many.interval(c, name))
            lines.append(f"{title_of(name)} {figure(name, many.value(c, name))}{f' ({span})' if span else ''}")
    return "\n".join([*lines, str(c["reason"] or "")]).strip()


def _axis(
    many: Many,
    name: str,
    marks: Sequence[Mark],
    near: Sequence[Mark],
    of: Callable[[Mark], float],
    hint: str,
    ends: Sequence[float] = (),
) -> Axis:
    """Over the front and what is not far from it: a collapse or a stall would press all others into a corner."""
    log, least = logarithmic(name, [of(m) for m in marks]), many.direction(name) == "min"
    usual = sorted(of(m) for m in marks if m.id in many.usual)
    some = usual[len(usual) // SIDES : len(usual) - len(usual) // SIDES]
    inner = sorted([*some, *(of(m) for m in near)])
    low, high = inner[0], inner[-1]
    reach = high / low if log else high - low
    for value in (of(m) for m in marks):
        far = (max(value / high, low / value) > 2.5 * reach) if log else max(value - high, low - value) > 1.2 * reach
        if not far or not reach:
            low, high = min(low, value), max(high, value)
    if ends and not log:  # of intervals: whole where they aren't much wider than what they stand around
        room = high - low
        low, high = max(min(*ends, low), low - room), min(max(*ends, high), high + room)
    unit = BUILT_IN[name].unit if name in BUILT_IN else ""
    text = title_of(name) + {"ms": ", ms", "share": ", %", "bytes": ", bytes", "dB": ", dB"}.get(unit, "")
    hint = hint or ("lower is better" if least else "higher is better")
    return Axis.over(f"{text}{' (log)' if log else ''} · {hint}", [low, high], log, 0.01 if unit == "share" else 1.0)


def _parallel(many: Many) -> Figure | None:
    """All objectives of all candidates."""
    near = [c for c in many.candidates if many.standing(c) in (CHOSEN, FRONT) and c["id"] in many.shown]
    front = {c["id"] for c in near}
    others = [c for c in many.candidates if c["id"] not in front and c["id"] in many.usual]
    some = others[:: max(1, -(-len(others) // report_parallel.MOST))]
    known = {name: [v for c in [*near, *some] if (v := many.value(c, name)) is not None] for name in many.axes}
    names = [name for name, values in known.items() if len(values) > 1]
    if len(names) < 2:
        return None
    scales = []
    for name in names:
        worst, best = min(known[name]), max(known[name])
        if many.direction(name) == "min":
            worst, best = best, worst
        texts = (figure(name, worst), figure(name, best))
        scales.append(Scale(title_of(name), worst, best, texts, logarithmic(name, known[name])))
    lines = [
        Line(
            c["id"],
            [many.value(c, name) for name in names],
            many.colours.index(place_of(c)) % COLOURS,
            many.standing(c),
            tip(many, c) if c["id"] in front else "",
        )
        for c in [*some, *near]
    ]
    caption = f"Grey: {len(some)} of the {len(others)} others that have the settings of all models." if others else ""
    keys = [Key("stroke thick", "chosen"), Key("stroke", "front")]
    colours = [key for key in _keys(many, near) if key.kind == "dot"]
    return Figure(
        "All objectives at once",
        lambda width, height: report_parallel.draw(scales, lines, width=width, height=height),
        [*colours, *keys],
        caption,
        ((1100, 420), (400, 60 + 62 * len(scales))),
    )


def _timed(many: Many) -> list[Candidate]:
    """Whose MACs and latency are known, with the settings that all models have."""
    rows = [c for c in many.candidates if c["id"] in many.usual and c["status"] == "ok"]
    return [c for c in rows if many.value(c, "latency_ms") and many.value(c, "macs")]


def _macs(many: Many) -> Figure | None:
    rows = _timed(many)
    if len({c["macs"] for c in rows}) < 2:
        return None
    marks = []
    for c in rows:
        mark = _mark(many, c, "macs", "latency_ms", c["id"] in many.shown, False)
        shown = CHOSEN if mark.standing == CHOSEN else FRONT  # here a front says nothing: all weigh the same
        marks.append(replace(mark, standing=shown, across=None, along=None))
    x = Axis.over("MACs (log)", [m.x for m in marks], True)
    y = Axis.over("latency, ms (log)", [m.y for m in marks], True)
    words = f"{len(marks)} deployments: latency against MACs"
    return Figure(
        "Latency against MACs",
        lambda width, height: report_scatter.draw(marks, x, y, width=width, height=height, name=words),
        _keys(many, rows, Key("ringed", "chosen")),
    )


def ranks(many: Many) -> list[str]:
    """In words, how far MACs foretell latency on each target and device in each precision."""
    from scipy.stats import spearmanr

    groups: dict[tuple[str, str], list[Candidate]] = {}
    for c in _timed(many):
        groups.setdefault((place_of(c), c["precision"]), []).append(c)
    found = []
    for (_, _), rows in groups.items():
        macs, times = [c["macs"] for c in rows], [c["latency_ms"] for c in rows]
        if len(set(macs)) < 3:
            continue
        rho = float(spearmanr(macs, times).statistic)
        words = f"{name_of(rows[0])}: rank correlation {rho:.2f} over {len(rows)} models"
        some = rows[:: max(1, -(-len(rows) // 1500))]
        pair = disagreement([c["macs"] for c in some], [c["latency_ms"] for c in some])
        if pair:
            slow, fast = some[pair[0]], some[pair[1]]
            names = [key_text(each["model"]) for each in (slow, fast)]
            words += f". {names[0]} has {slow['macs'] / fast['macs']:.2f} × the MACs of {names[1]}"
            words += f" and takes {slow['latency_ms'] / fast['latency_ms']:.2f} × its time"
            words += f" ({ms_text(slow['latency_ms'])} against {ms_text(fast['latency_ms'])} ms)"
        found.append(f"{words}.")
    return found


def failures(many: Many) -> list[tuple[str, int]]:
    """Why models and deployments failed, with how many did, the most frequent first."""
    counts = Counter(str(one["reason"]) for one in many.models.values() if one["status"] != "ok")
    counts.update(f"{name_of(c)}: {c['reason']}" for c in many.candidates if c["status"] != "ok")
    return counts.most_common()


def standings_text(many: Many) -> str:
    """How many stand where."""
    counts = Counter(many.standing(c) for c in many.candidates)
    words = {
        CHOSEN: "chosen",
        FRONT: "others on a front",
        TIE: "not decided against one there",
        OUT: "not to be chosen",
    }
    return ", ".join(f"{counts[kind]} {text}" for kind, text in words.items() if counts[kind])
