"""The proof as a page of Markdown: what a person reads before they ship, or when it failed."""

from __future__ import annotations

from typing import Any

from .proof.detections import Detected
from .proof.layers.depth import HEAD, Depth, table


def report(manifest: dict[str, Any]) -> str:
    """A bundle's ``report.md``. Holds no times: they change, and the page is under the hashes."""
    proof, recipe, host = manifest["proof"], manifest["recipe"], manifest["proven_on"]
    lines = [
        f"# {manifest['name']} for {manifest['target']}, {manifest['precision']}",
        "",
        _verdict(manifest),
        "",
        f"- Proven on: {host['cpu']} ({', '.join(host['flags'])}), {manifest['target']} "
        f"{manifest['tools'][manifest['target']]}. On another machine run `python selftest.py`.",
        f"- Reference: {manifest['source']['reference']}.",
        f"- Route: {', '.join(manifest['route']) or 'the file as it came'}.",
        *(f"- Tried before, and lost: {text}." for text in manifest["lost"]),
        f"- Settings: {_pairs(proof['settings'])}. What ran: {proof['placement'].get('precision', '?')} on "
        f"{_pairs(proof['placement'].get('where', {}))}.",
        *(f"- Note: {note}." for note in manifest["notes"]),
        *(f"- {text[0].upper()}{text[1:]}." for text in weak(proof, manifest["tolerance"]["sqnr_db"])),
        f"- Model: {manifest['model']}, {manifest['size_bytes'] / 1e6:.2f} MB.",
    ]
    if recipe["calibration_id"]:
        source = f"{recipe['calibration_n']} samples ({recipe['calibration_id']})"
        lines.append(f"- Calibrated on {source}: {_pairs(recipe['options'])}.")
        kinds = ", ".join(f"{kind}: {_pairs(ops)}" for kind, ops in recipe["operations"].items())
        lines.append(f"- Operations by what they compute in: {kinds or 'not known'}.")
        if manifest["data"]["held_out"]["n"] == recipe["calibration_n"]:
            lines.append("- Judged on the very samples that calibrated it: they were too few to hold any out.")
    lines += [*_decision(manifest), _accuracy_line(manifest), ""]
    return "\n".join(lines + _tables(proof)) + "\n"


def _decision(manifest: dict[str, Any]) -> list[str]:
    """What the rule in the graph is, where there is one."""
    rule = manifest.get("decision")
    if not rule:
        return []
    words = (
        f"softmax({rule['output']} / {rule['temperature']:g}), the expected cost of {len(rule['decisions'])} decisions"
    )
    seen = rule["agreement"]
    return [
        f"- Decision rule in the graph: {words}, the lowest; {rule['fitted']}.",
        f"- It decides as numpy does on {seen['decisions']:.1%} of {seen['samples']} samples, its costs are "
        f"{seen['cost_db']:.0f} dB from numpy's.",
    ]


def failure(
    name: str, target: str, precision: str, proof: dict[str, Any], hop: str, where: str = "", depth: Depth | None = None
) -> str:
    """The page that stands instead of a bundle when a check failed."""
    lines = [f"# {name} for {target}, {precision}: FAILED", "", f"**The hop that broke: {hop}.**", ""]
    lines += [f"- {problem}" for problem in proof["problems"]]
    lines += [f"- Settings: {_pairs(proof['settings'])}", *([f"- {where[0].upper()}{where[1:]}."] if where else []), ""]
    return "\n".join(lines + _tables(proof) + (depth_lines(depth) if depth else [])) + "\n"


def depth_lines(depth: Depth) -> list[str]:
    """The error along the depth of the network, as a table of Markdown."""
    head = ["", f"## Layers, on {', '.join(depth.samples)}", "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    return head + [f"| {' | '.join(row)} |" for row in table(depth)]


def unverified(manifest: dict[str, Any]) -> str:
    """Why nothing is known of accuracy; empty where it was judged."""
    if manifest["proof"]["accuracy"]:
        return ""
    given = manifest["data"].get("evaluate")
    if not given:
        return "accuracy not verified: no labelled data given"
    if not given["labelled"]:
        return f"accuracy not verified: the {given['n']} samples to evaluate on have no labels"
    found = f"accuracy not verified: {given['n']} labelled samples were given, but the model declares no classes"
    return f"{found} (a .py does, by get_labels())"


def weak(proof: dict[str, Any], bar: float) -> list[str]:
    """Outputs of which the bar proves little, because an artifact that never looks at its inputs would pass it."""
    rows = (proof["parity"] or {}).get("outputs", [])
    return [
        f"the bar says little of output {row['name']!r}: the mean of the source's answers would pass it, at "
        f"{row['mean_db']:.0f} dB"
        for row in rows
        if row.get("mean_db") is not None and row["mean_db"] >= bar
    ]


def _accuracy_line(manifest: dict[str, Any]) -> str:
    why = unverified(manifest)
    if why:
        return f"- {why[0].upper()}{why[1:]}."
    accuracy = manifest["proof"]["accuracy"]
    text = (
        f"- Accuracy: top-1 {accuracy['found']:.1%} of {accuracy['n']}, reference {accuracy['reference']:.1%}; "
        f"allowed drop {accuracy['max_drop']:g}"
    )
    if not accuracy["resolved"]:
        text += f" (n = {accuracy['n']} can't resolve that: SQNR and agreement decide)"
    return text + "."


def _verdict(manifest: dict[str, Any]) -> str:
    if manifest["proof"]["problems"]:
        return "**MISMATCH, packed because it was allowed: " + "; ".join(manifest["proof"]["problems"]) + "**"
    tolerance, parity = manifest["tolerance"], manifest["proof"]["parity"]
    needed = [f"{tolerance['sqnr_db']:g} dB"] if parity["outputs"] else []
    if parity["detections"]:
        bar = tolerance["detections"]
        needed.append(f"{bar['matched']:.0%} at an IoU of {bar['iou']:g} and scores within {bar['score']:g}")
    return f"Proven: {summary(manifest['proof'])} (needed {', '.join(needed)})."


def summary(proof: dict[str, Any]) -> str:
    """SQNR and agreement in a few words."""
    parity = proof["parity"]
    sqnr = parity["sqnr_db"]
    words = []
    if parity["outputs"]:
        words = ["integers equal" if sqnr is None else ("equal to the bit" if sqnr >= 300 else f"{sqnr:.1f} dB")]
    if parity["agreement"] is not None:
        words.append(f"top-1 agreement {parity['agreement']:.1%}")
    if parity["detections"]:
        words.append(Detected(**parity["detections"]).note)
    return f"{', '.join(words)} over {parity['samples']} samples"


def _pairs(data: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in data.items()) or "none"


def _tables(proof: dict[str, Any]) -> list[str]:
    parity = proof["parity"]
    if not parity:
        return []
    numbers = ("SQNR, dB", "worst, dB", "mean answer, dB", "max abs", "max rel", "cosine", "exact")
    titles = ("output", *numbers, "worst sample")
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines = ["## Main samples", "", *head, *map(_row, parity["outputs"])] if parity["outputs"] else []
    if parity["edges"]:
        lines += ["", "## Edge cases", "", *head, *map(_row, parity["edges"])]
    if parity["skipped_edges"]:
        lines += ["", f"Edge cases whose reference is not finite: {', '.join(parity['skipped_edges'])}."]
    return lines


def _row(out: dict[str, Any]) -> str:
    levels = ("" if out[key] is None else f"{out[key]:.1f}" for key in ("sqnr_db", "worst_db", "mean_db"))
    far = ("" if out[key] is None else f"{out[key]:.3g}" for key in ("max_abs", "max_rel"))
    cosine = "" if out["cosine"] is None else f"{out['cosine']:.8f}"
    numbers = (*levels, *far, cosine, f"{out['exact']:.2%}")
    return f"| {' | '.join((out['name'], *numbers, out['worst']))} |"
