"""The report of a search over many models: what it shows of each, also where there are thousands, and as files."""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from seatrial.devices.store import Store
from seatrial.search import report_many, report_models, report_parallel, report_png, report_scatter
from seatrial.search.candidate import Candidate
from seatrial.search.kept import Kept
from seatrial.search.objectives import Estimate, Objective
from seatrial.search.report import figures, render
from seatrial.search.report_added import page_of, rows_of
from seatrial.search.report_many import Many
from seatrial.search.study import Study
from seatrial.search.trials import Trial, Trials

Document = dict[str, Any]
# A search that ran: 4 models of a family on digits, 33 deployments on three runtimes, with its times.
SAMPLE: Document = json.loads(Path(__file__).with_name("study_models.json").read_text(encoding="utf-8"))


@pytest.fixture
def study() -> Document:
    return copy.deepcopy(SAMPLE)


def text_of(html: str) -> str:
    words = re.sub(r"<(style|script|title)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", words)).replace("\N{NO-BREAK SPACE}", " ")


def section(html: str, title: str) -> str:
    found = re.search(rf"<section><h2>{title}</h2>.*?</section>", html, re.DOTALL)
    assert found, title
    return found.group()


def fail_one(study: Document) -> str:
    """Let a model that nobody chose fail before it was deployed."""
    gone = next(c["model"] for c in study["candidates"] if c["model"].startswith("8ae87d0b"))
    study["models"][gone].update(status="failed", reason="the operator foo is unknown", kind="timeout", accuracy=None)
    study["candidates"] = [c for c in study["candidates"] if c["model"] != gone]
    ids = {c["id"] for c in study["candidates"]}
    study["fronts"] = {target: [id for id in front if id in ids] for target, front in study["fronts"].items()}
    return str(gone)


def many_more(study: Document, copies: int) -> Document:
    """The same models again and again, slower each time, under other keys; the first ones are those that were."""
    models, rows = dict(study["models"]), list(study["candidates"])
    places = {target: place for place, target in enumerate(study["fronts"])}
    for k in range(copies):
        models |= {f"{k:04x}{key[4:]}": one for key, one in study["models"].items()}
        for c in study["candidates"]:
            if c["latency_ms"]:
                own = {"id": f"{k:04x}{c['id'][4:]}", "model": f"{k:04x}{c['model'][4:]}", "chosen": False}
                slower = 1.1 + (7 * k + 53 * places[c["target"]]) % copies / copies
                rows.append({**c, **own, "front": False, "latency_ms": c["latency_ms"] * slower})
    return {**study, "models": models, "candidates": rows}


def test_the_page_says_what_was_chosen_for_each_target(study: Document) -> None:
    html = render(study)
    text = text_of(html)
    assert "TFLite int8: accuracy 91.1 %, latency 0.00461 ms" in text
    assert "Chosen for the highest accuracy; where nobody is proven better, latency decided." in text
    assert "4 models tried, none failed; 33 deployments of them on TFLite, ONNX Runtime and OpenVINO." in text
    cards = re.findall(r'<li class="card">.*?</li>', html, re.DOTALL)
    assert [re.findall("TFLite|ONNX Runtime|OpenVINO", text_of(card))[0] for card in cards] == [
        "TFLite",
        "ONNX Runtime",
        "OpenVINO",
    ]
    assert "accuracy 91.1 % 88.1 to 93.6 %" in text_of(cards[0]) and "over all" in cards[0]
    assert "0.0131 to 0.0140 ms" in text_of(cards[1]) and "5e037573" in cards[1] and "width2 0.5" in text_of(cards[1])


def test_the_words_say_what_was_counted_and_judged_on_what(study: Document) -> None:
    study["chosen"]["overall"] = best = study["chosen"]["per_target"]["tflite"]["id"]
    row = next(c for c in study["candidates"] if c["id"] == best)
    row["confirmed_accuracy"] = 0.876
    key = row["model"]
    study["models"][f"{key}-tuned"] = {**study["models"][key], "trained": "finetuned"}
    study["trainings"] = {"shared": 1, "to check ranks": 6, "of models": 1, "spared": 2}
    text = text_of(render(study))
    assert "4 models tried, none failed, 1 trained further; 33 deployments" in text, "the same model counts once"
    assert "On data that nothing was chosen by its accuracy is 87.6 %." in text
    assert re.search(r"[\d.]+ to [\d.]+ %, confirmed 87.6 %", text), "beside the interval, not in its place"
    assert "deployments are judged on 449 examples of it" in text
    assert (
        "1 shared, 6 to see whether inherited weights rank models as own ones do, 1 of single models; 2 spared" in text
    )
    assert "Finished steps of all runs." in text


def test_every_deployment_is_a_point_of_its_front_and_a_row(study: Document) -> None:
    html = render(study)
    fronts = section(html, "The front of each target")
    timed = [c["id"] for c in study["candidates"] if c["latency_ms"]]
    assert sorted(re.findall(r'href="#c-(\w+)"', fronts)) == sorted(2 * timed), "in the wide and in the narrow picture"
    rows = section(html, "Their deployments")
    assert re.findall(r'<tr id="c-(\w+)"', rows)[:3] == [
        pick["id"] for pick in sorted(study["chosen"]["per_target"].values(), key=lambda p: list(timed).index(p["id"]))
    ]
    assert set(re.findall(r'<tr id="c-(\w+)"', rows)) == {c["id"] for c in study["candidates"]}
    assert {m[:8] for m in study["models"]} == set(re.findall(r'<tr id="m-(\w{8})', section(html, "The models")))


def test_who_is_on_a_front_and_who_is_tied_with_it_is_drawn_so(study: Document) -> None:
    other = next(c for c in study["candidates"] if c["reason"] and c["reason"].startswith("surpassed by"))
    kind = rf'class="point (\w+) t\d" href="#c-{other["id"]}"'
    assert set(re.findall(kind, section(render(study), "The front of each target"))) == {"behind"}
    other["reason"] = other["reason"].replace("surpassed by", report_many.UNDECIDED)
    html = render(study)
    assert set(re.findall(kind, section(html, "The front of each target"))) == {"tie"}
    assert "1 not decided against one there" in text_of(html)
    front = study["fronts"]["openvino"][0]
    drawn = section(html, "The front of each target")
    assert re.findall(rf'class="point (\w+) t\d" href="#c-{front}"', drawn) == ["front"] * 2


def test_a_target_without_a_choice_says_so_and_its_bound_is_drawn(study: Document) -> None:
    study["goals"]["constraints"] = ["latency_ms <= 0.006"]
    del study["chosen"]["per_target"]["openvino"]
    study["fronts"]["openvino"] = []
    html = render(study)
    assert "OpenVINO No model keeps to the constraints here." in text_of(html)
    fronts = section(html, "The front of each target")
    openvino = fronts[fronts.index("<h3>OpenVINO") :]
    assert set(re.findall(r'class="point (\w+) ', openvino)) == {"out"}
    assert 'class="bound"' in fronts[: fronts.index("<h3>ONNX")], "0.006 ms lies among those of TFLite"
    assert "among those that keep to latency_ms &lt;= 0.006" in text_of(html)


@pytest.mark.parametrize(("bound", "direction"), [("missed <= 0.2", "min"), ("kept >= 0.1", "max")])
def test_what_is_bounded_need_be_no_objective(study: Document, bound: str, direction: str) -> None:
    """One that was added to the study, and is given to a later search as a bound alone."""
    name = bound.split()[0]
    study["goals"]["constraints"] = [bound]
    for place, c in enumerate(study["candidates"]):
        c["values"] = {**c.get("values", {}), name: 0.1 + place / 1000}
    assert Many(study).direction(name) == direction
    assert f"among those that keep to {bound}" in text_of(render(study)).replace("&lt;", "<").replace("&gt;", ">")


def test_failed_models_are_counted_with_their_reason(study: Document) -> None:
    assert "What failed" not in render(study)
    gone = fail_one(study)
    html = render(study)
    assert "4 models tried, 1 of them failed" in text_of(html)
    assert "1 × the operator foo is unknown" in text_of(section(html, "What failed"))
    row = re.search(rf'<tr id="m-{gone}".*?</tr>', html, re.DOTALL)
    assert row and "failed (timeout) the operator foo is unknown" in text_of(row.group()).replace("  ", " ")


def test_all_failed_makes_a_page_that_says_so(study: Document) -> None:
    for one in study["models"].values():
        one.update(status="failed", reason="out of memory", kind="oom", accuracy=None, macs=None, parameters=None)
    study.update(candidates=[], comparisons=[], fronts={}, chosen={"overall": None, "per_target": {}})
    text = text_of(render(study))
    assert "Nothing was chosen" in text and "4 × out of memory" in text and "there is nothing to draw" in text


def test_text_of_the_study_is_never_markup(study: Document) -> None:
    evil = "<script>alert(1)</script>\"'&$name"
    study.update(title=evil, command=evil, notes=[evil])
    study["goals"]["objectives"].append({"name": evil, "direction": "min"})
    fail_one(study)
    for one in study["models"].values():
        one.update(values={evil: evil}, reason=evil, trained=evil)
    for c in study["candidates"]:
        c.update(reason=evil, precision=evil, settings={evil: evil})
        c["values"][evil] = 1.0
    added = {"name": evil, "text": evil, "best": evil, "value": None, "old": None, "same": False, "difference": None}
    html = render(study, [added])
    assert html.count("<script") == 1 and "alert(1)" in text_of(html)


def test_macs_that_mislead_are_named(study: Document) -> None:
    said = report_models.ranks(Many(study))
    assert "ONNX Runtime fp32: rank correlation 1.00 over 4 models." in said
    (tflite,) = [line for line in said if line.startswith("TFLite int8")]
    assert "0.80" in tflite and "8ae87d0b has 0.95 × the MACs of 5e037573 and takes 1.06 × its time" in tflite
    assert report_many.disagreement([1, 2, 4, 8], [1.0, 3.0, 2.0, 4.0]) == (1, 2)
    assert report_many.disagreement([1, 2, 4], [1.0, 2.0, 3.0]) is None


def test_in_the_parallel_view_the_best_is_at_the_top_and_ratios_count_for_times(study: Document) -> None:
    high = report_parallel.Scale("accuracy", 0.8, 0.9, ("80 %", "90 %"), False)
    low = report_parallel.Scale("latency", 8.0, 2.0, ("8 ms", "2 ms"), True)
    assert (high.share(0.9), low.share(2.0), low.share(4.0)) == (pytest.approx(1), pytest.approx(1), pytest.approx(0.5))
    lines = [
        report_parallel.Line("a", (0.9, 4.0), 0, "chosen", "a"),
        report_parallel.Line("b", (0.8, None), 0, "front"),
    ]
    svg = report_parallel.draw([high, low], lines, width=1100, height=420)
    assert 'd="M76,48L1024,219"' in svg, "from the top of the first to the middle of the second"
    assert 'class="rest" d="M76,390"' in svg, "what isn't known is not drawn"
    page = section(render(study), "All objectives at once")
    tops = re.findall(r'class="tick" x="[\d.]+" y="36.0" text-anchor="middle">([^<]*)<', page)
    assert [top.replace("\N{NO-BREAK SPACE}", " ") for top in tops] == [
        "92.4 %",
        "0.00255 ms",
        "94.3 k",
        "6.56 k",
        "20 kB",
    ]


def test_an_axis_is_not_pressed_flat_by_one_that_stalled(study: Document) -> None:
    usual = next(
        c for c in study["candidates"] if c["target"] == "tflite" and c["precision"] == "fp32" and not c["front"]
    )
    usual["latency_ms"] = 5.0
    fronts = section(render(study), "The front of each target")
    tflite = fronts[: fronts.index("<h3>ONNX")]
    assert max(c["latency_ms"] for c in study["candidates"] if c["latency_ms"] and c is not usual) > 4
    assert "2 of 11 lie beyond the picture and stand on its edge" in tflite
    ticks = [float(text) for text in re.findall(r'class="tick"[^>]*text-anchor="middle">([\d.]+)<', tflite)]
    assert max(ticks) < 0.1


def test_thousands_of_deployments_make_a_page_that_stays_small(study: Document) -> None:
    many = many_more(study, 160)
    html = render(many)
    assert len(many["candidates"]) > 5000 and len(html) < 2_500_000
    rows = re.findall(r'<tr id="c-(\w+)"', html)
    assert len(rows) == 300 and {id for front in study["fronts"].values() for id in front} <= set(rows)
    told = f"300 of {len(many['candidates']):,} deployments are shown. All of them: seatrial study export"
    assert told in text_of(html)
    fronts = section(html, "The front of each target")
    assert len(re.findall('<a class="point', fronts)) == 2 * 300
    dots = sum(part.count("h0") for part in re.findall(r'class="dots[^"]*" d="([^"]*)"', fronts))
    assert dots > 1000, "the others are there too"
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(re.findall(r'id="([^"]+)"', html)), "no link leads nowhere"


def test_an_objective_of_ones_own_is_an_axis_with_its_interval(study: Document) -> None:
    study["goals"]["objectives"][0] = {"name": "missed", "direction": "min"}
    for c in study["candidates"]:
        c["values"]["missed"] = 1 - c["accuracy"]
        c["intervals"] = {"missed": [0.9 - c["accuracy"], 1.1 - c["accuracy"]]}
    text = text_of(render(study))
    assert "TFLite int8: missed 0.08909, latency 0.00461 ms" in text
    assert "Chosen for the lowest missed" in text and "missed · lower is better" in text
    assert "missed 0.08909 -0.01091 to 0.1891" in text


def with_facts(study: Document, folder: Path, scores: dict[str, float]) -> Study:
    """A study's folder with a store in which an objective was added, of which some candidates have a score."""
    (folder / "study.json").write_text(json.dumps(study))
    with closing(Store(folder / "facts.sqlite")) as store:
        trials, kept = Trials(store, study["key"]), Kept(store, study["key"])
        for c in study["candidates"]:
            trials.add(Trial(Candidate.of(c["target"], c["precision"], c["settings"], c["model"]), "ok"))
        objective = Objective("f1", "macro_f1", "max")
        kept.add(objective)
        kept.score(objective.id, {id: Estimate(x, x - 0.01, x + 0.01, 449).to_dict() for id, x in scores.items()})
    return Study.read(folder)


def test_an_objective_that_was_added_stands_in_the_page_beside_the_winner(study: Document, tmp_path: Path) -> None:
    winner, other = study["chosen"]["overall"], study["fronts"]["openvino"][0]
    found = with_facts(study, tmp_path, {winner: 0.90, other: 0.95})
    (row,) = rows_of(found)
    assert (row["id"], row["same"]) == (other, False)
    assert row["value"] == {"value": 0.95, "low": pytest.approx(0.94), "high": pytest.approx(0.96)}
    assert row["old"]["value"] == 0.90 and row["difference"] is None, "f1 is no mean over examples"
    text = text_of(section(render(study, [row]), "Objectives that were added later"))
    assert "de255148 openvino fp32 × 1" in text and "0.95 [0.94, 0.96]" in text and "0.9 [0.89, 0.91]" in text
    assert page_of(found) == render(study, [row]), "a search that goes on writes the same page"
    (row,) = rows_of(with_facts(study, tmp_path, {winner: 0.90}))
    assert row["id"] == other, "what is stored stays"


def test_an_objective_of_the_study_file_is_not_called_added(study: Document, tmp_path: Path) -> None:
    study["goals"]["described"] = ["f1"]
    found = with_facts(study, tmp_path, {study["chosen"]["overall"]: 0.90})
    assert rows_of(found) == [] and "added later" not in page_of(found)


def test_an_added_objective_that_can_not_be_had_any_more_costs_no_report(study: Document, tmp_path: Path) -> None:
    found = with_facts(study, tmp_path, {})
    with sqlite3.connect(tmp_path / "facts.sqlite") as raw:  # there are answers by now, of a model that is gone
        raw.execute("""update trials set data = json_set(data, '$.outputs', 'work/gone.npz')""")
    text = text_of(page_of(found))
    assert "the objectives that were added are not shown" in text and "is gone" in text
    assert "TFLite int8: accuracy" in text


def test_the_pictures_of_a_file_are_those_of_the_page(study: Document, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    drawn = figures(study)
    assert list(drawn) == ["front-tflite", "front-onnxruntime", "front-openvino", "objectives", "macs"]
    for name, figure in drawn.items():
        report_png.save(figure, tmp_path / f"{name}.png")
        with image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 2 * figure.sizes[0][0]
            assert len(picture.getcolors(1_000_000)) > 50
    svg = drawn["front-openvino"].draw(1100, 420)
    x, y = re.search(r'class="ring" cx="([\d.]+)" cy="([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    picture = report_png.paint(drawn["front-openvino"])
    top = picture.height - 2 * 420
    assert picture.getpixel((round(2 * float(x)), round(2 * float(y)) + top)) == (10, 143, 106), "the page's --t2"


def test_a_picture_has_what_its_commands_say() -> None:
    assert list(report_png.lines_of("M1,2H3V4L5,6M7,8h2v-1m-4,-4l4,4")) == [
        [(1, 2), (3, 2), (3, 4), (5, 6)],
        [(7, 8), (9, 8), (9, 7)],
        [(5, 3), (9, 7)],
    ]
    style = report_png.Style()
    inner = style.of([{"svg"}, {"a", ".point", ".chosen", ".t1"}, {"circle", ".mark"}], {"--c": "var(--t1)"})
    assert style.colour(inner["fill"], inner, 1.0) == (207, 83, 0, 255)
    assert style.of([{"path", ".front"}], {}).get("fill") is None, "only within an svg"


def test_labels_and_ticks_are_short() -> None:
    assert [report_scatter.short(x) for x in (0.005, 20_000, 2.5e6)] == ["0.005", "20k", "2.5M"]
    axis = report_scatter.Axis.over("accuracy", [0.9, 0.99], unit=0.01)
    assert axis.high <= 1.002 and [text for _, text in axis.ticks(6)] == ["90", "92", "94", "96", "98"]
    assert axis.beyond(0.5) and axis.share(0.5) == 0.0
