"""The report shows everything that a study holds, fetches nothing, and says no more than was measured."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from seatrial.search import report_plot
from seatrial.search.report import render

Study = dict[str, Any]
# A search as it may come out: 22 candidates with ties, failures and one collapse, and 20 labelled photos.
SAMPLE: Study = json.loads(Path(__file__).with_name("study.json").read_text(encoding="utf-8"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), None)
# And one over many models: 4 of a family on digits, 33 deployments.
MODELS: Study = json.loads(Path(__file__).with_name("study_models.json").read_text(encoding="utf-8"))
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture
def study() -> Study:
    return copy.deepcopy(SAMPLE)


class Page(HTMLParser):
    """A page read back: its tags, its visible words, and whether every tag that was opened was closed."""

    EMPTY = frozenset(["meta", "link", "br", "line", "rect", "circle", "polygon", "path"])

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def of_class(self, tag: str, name: str) -> list[dict[str, str | None]]:
        return [attrs for kind, attrs in self.tags if kind == tag and name in (attrs.get("class") or "").split()]


def read(study: Study) -> Page:
    page = Page(render(study))
    assert page.open == [], "tags left open"
    return page


def without_labels(study: Study, why: str = "no labelled data given") -> Study:
    for candidate in study["candidates"]:
        candidate["accuracy"] = None
    study.update(reference_accuracy=None)
    study["data"]["evaluate"] = None
    study["notes"] = [f"accuracy not verified: {why}", *study["notes"]]
    return study


def all_failed(study: Study) -> Study:
    figures = ("latency_ms", "latency_low_ms", "latency_high_ms", "accuracy", "agreement", "sqnr_db")
    for candidate in study["candidates"]:
        candidate.update(dict.fromkeys(figures), status="failed", reason="out of memory", launches=0)
        candidate.update(front=False, chosen=False)
    study.update(chosen={"overall": None, "per_target": {}}, comparisons=[])
    return study


def only_one(study: Study) -> Study:
    study["candidates"] = [candidate for candidate in study["candidates"] if candidate["front"]]
    (candidate,) = study["candidates"]
    study["chosen"]["per_target"] = {candidate["target"]: {"id": candidate["id"], "bundle": "best"}}
    study["comparisons"] = []
    return study


def test_the_page_asks_nobody_for_anything(study: Study) -> None:
    html = render(study)
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    for tag, attrs in Page(html).tags:
        assert "src" not in attrs, f"<{tag}> loads {attrs['src']}"
        if tag == "link":
            assert attrs["href"] == "data:,"
        elif "href" in attrs:
            assert (attrs["href"] or "").startswith("#")


def test_every_candidate_has_a_row_with_its_reason(study: Study) -> None:
    page = read(study)
    rows = {attrs["id"] for tag, attrs in page.tags if tag == "tr" and "id" in attrs}
    assert rows == {f"c-{candidate['id']}" for candidate in study["candidates"]}
    for candidate in study["candidates"]:
        assert (candidate["reason"] or "") in page.text


def test_every_measured_candidate_is_a_point_that_leads_to_its_row(study: Study) -> None:
    points = [attrs["href"] for attrs in read(study).of_class("a", "point")]
    measured = [f"#c-{candidate['id']}" for candidate in study["candidates"] if candidate["latency_ms"]]
    assert sorted(points) == sorted(2 * measured), "once in the wide picture, once in the narrow one"
    assert "3 of 22 have no latency or no accuracy" in read(study).text


def test_the_headline_says_which_how_fast_how_right_and_against_what(study: Study) -> None:
    study["comparisons"].reverse()
    text = read(study).text
    assert "OpenVINO int8: 6.41 ms at 90.0 % accuracy" in text
    assert "Right on 18 of 20 labelled inputs, as many as the source model." in text
    assert "1.62 × as fast as the fastest default beside it (TFLite int8, 1 thread · delegate xnnpack)" in text
    assert "2.77 × as fast as the fastest default in fp32 (OpenVINO fp32, 1 thread" in text
    assert text.index("1.62 ×") < text.index("2.77 ×"), "the hardest one first, whatever the document's order"
    assert "interval 1.56 to 1.67" in text


def test_a_ratio_given_the_other_way_round_reads_the_same(study: Study) -> None:
    expected = read(study).text
    pair = study["comparisons"][0]
    pair.update(a=pair["b"], b=pair["a"], ratio=1 / 0.617, low=1 / 0.64, high=1 / 0.598)
    sentence = re.search(r"1\.62 × as fast.*?session\.", expected)
    assert sentence is not None and sentence.group() in read(study).text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.94, 1.02, "No difference was decided"), (1.01, 1.2, "It is the slower of the two")],
)
def test_nothing_is_called_faster_that_was_not_decided(study: Study, low: float, high: float, said: str) -> None:
    study["comparisons"] = [study["comparisons"][0] | {"ratio": (low + high) / 2, "low": low, "high": high}]
    text = read(study).text
    assert said in text and "as fast as" not in text


def test_a_drop_of_accuracy_stands_in_the_headline(study: Study) -> None:
    study["reference_accuracy"] = 0.95
    text = read(study).text
    assert "0.050 below the source model, which has 95.0 %; a drop of 0.05 was allowed" in text


def test_accuracy_on_confirmation_data_stands_beside_the_other(study: Study) -> None:
    study["candidates"][14]["confirmed_accuracy"] = 0.862
    assert "18 of 20, confirmed 86.2 %" in read(study).text


def test_all_kinds_of_data_are_named(study: Study) -> None:
    study["data"].update(held_out={"name": "calibration", "n": 16}, confirm={"name": "later", "n": 500})
    text = read(study).text
    for expected in (
        "calibration, 100 samples",
        "calibration, 16 samples",
        "evaluate, 20 samples",
        "later, 500 samples",
    ):
        assert expected in text


def test_a_precision_that_ran_as_another_is_named(study: Study) -> None:
    assert "ran as" not in read(study).text
    study["candidates"][9]["ran_precision"] = "bf16"
    assert "fp32, ran as bf16" in read(study).text


def test_host_versions_notes_cost_and_command_are_there(study: Study) -> None:
    text = read(study).text
    for expected in (
        "AMD EPYC 7B13",
        "avx2, fma",
        "1.32.0",
        "2026.4.1",
        "2.3.0",
        study["command"],
        *study["notes"],
    ):
        assert expected in text
    assert "5 min 52 s in all" in text and "calibration, 100 samples" in text


def test_text_of_the_study_is_never_markup(study: Study) -> None:
    evil = "<script>alert(1)</script>\"'&$name"
    for key in ("title", "created", "command"):
        study[key] = evil
    study["source"] = {"name": evil, "id": evil}
    study["host"] = dict.fromkeys(("cpu", "cores", "os"), evil) | {"flags": [evil], "runtimes": {evil: evil}}
    study["data"]["calibration"]["name"] = evil
    study["notes"] = [evil]
    study["cost"]["seconds"] = {evil: 1.0}
    bundles = study["chosen"]["per_target"] = {evil: {"id": study["chosen"]["overall"], "bundle": evil}}
    assert len(bundles) == 1
    for candidate in study["candidates"]:
        candidate.update(target=evil, precision=evil, reason=evil, ran_precision=evil, settings={evil: evil})
    study["comparisons"][0].update(text=evil, b=evil)
    page = read(study)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.text.count("<script>alert(1)</script>\"'&$name") > 60


def test_an_id_of_another_shape_breaks_no_attribute(study: Study) -> None:
    study["candidates"][0]["id"] = 'x" onmouseover="alert(1)'
    assert not [attrs for _, attrs in read(study).tags if "onmouseover" in attrs]


def test_without_labels_agreement_takes_the_place_of_accuracy(study: Study) -> None:
    text = read(without_labels(study)).text
    assert "Accuracy not verified: no labelled data given" in text
    assert "Speed against agreement" in text and "agreement with the source, %" in text
    assert "source 90.0 %" not in text, "a line of the accuracy"
    assert "OpenVINO int8: 6.41 ms" in text


def test_labels_without_a_declared_classifier_are_not_called_missing(study: Study) -> None:
    text = read(without_labels(study, "the model declares no classes (get_labels)")).text
    assert "Accuracy not verified: the model declares no classes (get_labels)." in text
    assert "no labelled data given" not in text


def test_one_candidate_makes_a_page(study: Study) -> None:
    page = read(only_one(study))
    assert len(page.of_class("a", "point")) == 2
    assert "wasn't compared with the defaults" in page.text


def test_all_failed_makes_a_page_that_says_so(study: Study) -> None:
    page = read(all_failed(study))
    assert "Nothing was chosen" in page.text and "22 failed" in page.text
    assert "The most frequent reason, 22 of 22: out of memory." in page.text
    assert "No bundle was packed" in page.text and not page.of_class("a", "point")


def test_no_candidate_at_all_makes_a_page(study: Study) -> None:
    study.update(candidates=[], comparisons=[], chosen={"overall": None, "per_target": {}})
    assert "No candidate was tried" in read(study).text


def test_figures_that_are_not_numbers_are_left_out(study: Study) -> None:
    study["candidates"][0].update(latency_ms=float("nan"), accuracy=float("inf"))
    text = read(study).text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_another_schema_is_refused(study: Study) -> None:
    study["schema"] = "seatrial.study/2"
    with pytest.raises(ValueError, match=r"seatrial\.study/1"):
        render(study)


def test_labels_of_crowded_points_stand_apart_and_inside() -> None:
    area = report_plot.Box(0, 0, 400, 300)
    spots = [report_plot.Box(x - 8, 142, x + 8, 158) for x in (30, 38, 46, 54, 390)]
    placed = report_plot.place_labels([(spot, 130) for spot in spots], spots, area, 18)
    for index, box in enumerate(placed):
        assert box.outside(area) == 0
        assert not any(box.overlap(other) for other in placed[index + 1 :])
        assert not any(box.overlap(spot) for spot in spots)


def spots(*points: tuple[str, float, float]) -> dict[str, tuple[float, float]]:
    """Where `draw` puts round markers, given as (id, ms, score), all of them chosen."""
    drawn = [
        report_plot.Point(
            id, ms, ms, ms, score, colour=0, precision="fp32", label="name", tip="tip", chosen=True, best=True
        )
        for id, ms, score in points
    ]
    svg = report_plot.draw(drawn, width=1100, height=470, score_name="accuracy")
    found = re.findall(r'href="#c-(\w+)"(?:(?!</a>).)*?<circle cx="([\d.]+)" cy="([\d.]+)" r="6\.0"', svg)
    assert len(found) == len(points)
    return {id: (float(x), float(y)) for id, x, y in found}


def test_markers_of_equal_candidates_do_not_hide_each_other() -> None:
    places = list(spots(*[(f"same{index}", 10, 0.9) for index in range(5)]).values())
    for index, (x, y) in enumerate(places):
        assert all(abs(x - ox) + abs(y - oy) > 11 for ox, oy in places[index + 1 :])


def test_a_marker_is_never_moved_past_one_of_another_score() -> None:
    """Moved apart are ties alone: otherwise the picture would put a worse one above a better one."""
    places = spots(("better", 10.0, 0.7436), ("worse", 10.02, 0.7416), ("far", 40, 0.70), ("low", 40, 0.68))
    assert places["better"][1] < places["worse"][1]
    scale = (places["far"][1] - places["better"][1]) / (0.7436 - 0.70)
    assert places["worse"][1] - places["better"][1] == pytest.approx(0.002 * scale, abs=0.2)


def test_to_the_left_is_faster_on_a_log_scale_and_one_far_below_stands_on_the_edge() -> None:
    places = spots(("a", 5, 0.9), ("b", 10, 0.9), ("c", 20, 0.88))
    assert places["b"][0] - places["a"][0] == pytest.approx(places["c"][0] - places["b"][0], abs=0.2)
    infeasible = report_plot.Point("d", 7, 7, 7, 0.0, 0, "fp32", "d", "d", feasible=False)
    good = report_plot.Point("e", 7, 7, 7, 0.9, 0, "fp32", "e", "e")
    svg = report_plot.draw([infeasible, good], width=1100, height=470, score_name="accuracy")
    assert svg.count('class="down"') == 1 and ">0<" not in svg


@pytest.mark.parametrize(("low", "high"), [(5.9, 65), (9.8, 10.2), (0.02, 900), (1, 1.06), (99, 101)])
def test_log_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = report_plot.log_ticks(low, high, 8)
    assert 2 <= len(ticks) <= 8 and low <= ticks[0] and ticks[-1] <= high
    assert len({f"{tick:.3g}" for tick in ticks}) == len(ticks)


PROBE = """<script>
window.addEventListener("error", function (event) { top.document.title = "ERROR " + event.message; });
document.addEventListener("securitypolicyviolation", function (event) {
  top.document.title = "BLOCKED " + event.blockedURI + event.violatedDirective;
});
window.addEventListener("load", function () {
  var table = document.querySelector("table.all"), buttons = table.querySelectorAll("th button");
  function first() { return table.tBodies[0].rows[0].id; }
  buttons[1].click(); var fastest = first();
  buttons[1].click(); var slowest = first();
  var point = document.querySelector("%s .point");
  point.dispatchEvent(new MouseEvent("mousemove", { clientX: 50, clientY: 50 }));
  var names = Array.from(document.querySelectorAll("%s svg .name"), function (name) {
    var box = name.getBoundingClientRect();
    return [box.left, box.top, box.right, box.bottom].map(Math.round);
  });
  top.document.body.dataset.seen = JSON.stringify({
    fastest: fastest, slowest: slowest, tip: document.getElementById("tip").textContent, names: names,
    width: document.documentElement.clientWidth, needed: document.documentElement.scrollWidth
  });
});
</script>"""


def chromium(profile: Path, *words: str) -> subprocess.CompletedProcess[str]:
    quiet = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    quiet += ["disable-component-update", "disable-sync", "hide-scrollbars", "enable-logging=stderr"]
    flags = [f"--{name}" for name in quiet]
    command = [str(CHROMIUM), "--headless", *flags, f"--user-data-dir={profile}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def seen_in_browser(study: Study, folder: Path, width: int, picture: str) -> dict[str, Any]:
    """What a browser makes of the page in a frame of `width` px; its own window is 500 px at least."""
    inner = render(study).replace("</head>", PROBE % (picture, picture) + "</head>", 1)
    html = f'<title>ok</title><body><iframe width="{width}" height="900" srcdoc="{escape(inner)}"></iframe>'
    (folder / "page.html").write_text(html, encoding="utf-8")
    words = ["--window-size=1400,1000", "--dump-dom", (folder / "page.html").as_uri()]
    done = chromium(folder / "profile", *words)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not errors
    assert "<title>ok</title>" in done.stdout, "a script failed, or the page asked for something"
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, "the page's script didn't come to its end"
    seen: dict[str, Any] = json.loads(unescape(found.group(1)))
    return seen


@browser
@pytest.mark.parametrize(("width", "picture"), [(1280, ".wide"), (900, ".wide"), (390, ".narrow")])
def test_a_browser_sorts_shows_tips_and_needs_no_sideways_scrolling(
    study: Study, tmp_path: Path, width: int, picture: str
) -> None:
    seen = seen_in_browser(study, tmp_path, width, picture)
    by_speed = sorted((c for c in study["candidates"] if c["latency_ms"]), key=lambda c: float(c["latency_ms"]))
    assert (seen["fastest"], seen["slowest"]) == (f"c-{by_speed[0]['id']}", f"c-{by_speed[-1]['id']}")
    assert " ms (" in seen["tip"]
    assert seen["needed"] <= seen["width"] <= width
    boxes = [report_plot.Box(*name) for name in seen["names"]]
    assert len(boxes) == 3
    for index, box in enumerate(boxes):
        assert not any(box.overlap(other) for other in boxes[index + 1 :]), "two labels cover each other"


@browser
@pytest.mark.parametrize(("width", "picture"), [(1280, ".wide"), (390, ".narrow")])
def test_a_browser_shows_many_models_without_sideways_scrolling(tmp_path: Path, width: int, picture: str) -> None:
    seen = seen_in_browser(MODELS, tmp_path, width, picture)
    assert seen["needed"] <= seen["width"] <= width
    assert "accuracy" in seen["tip"] and "latency" in seen["tip"]
    boxes = [report_plot.Box(*name) for name in seen["names"]]
    assert len(boxes) == 4 + 4 + 3 + 5, "the fronts' members and the names of the axes"
    for index, box in enumerate(boxes):
        assert not any(box.overlap(other) for other in boxes[index + 1 :]), "two labels cover each other"


@browser
@pytest.mark.parametrize("change", [without_labels, all_failed, only_one])
def test_a_browser_draws_something(study: Study, tmp_path: Path, change: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "page.html").write_text(render(change(study)), encoding="utf-8")
    shot = tmp_path / "page.png"
    done = chromium(
        tmp_path / "profile",
        "--window-size=1280,1400",
        f"--screenshot={shot}",
        (tmp_path / "page.html").as_uri(),
    )
    assert "CONSOLE" not in done.stderr
    with image.open(shot) as picture:
        assert picture.size == (1280, 1400)
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 100
