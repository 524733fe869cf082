"""One case of the coverage table: export it by the command line, have each bundle checked without seatrial."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from coverage_cases import MADE, Case

BIN = Path(sys.executable).parent
CHECKER = Path(__file__).with_name("coverage_check.py")
SECONDS = {"export": 1800, "check": 600}


def ask(case: Case, targets: list[str]) -> list[dict[str, Any]]:
    """Export to these targets and check what came out: a row for each."""
    prepare(case)
    out = MADE / "bundles" / "".join(c if c.isalnum() or c in "._-" else "_" for c in case.name)
    start = time.monotonic()
    made = export(case, targets, out)
    spent = time.monotonic() - start
    bundles = {target: answer["bundle"] for target, answer in made.items() if "bundle" in answer}
    checked = check(case, bundles, out) if bundles else {}
    rows = []
    for target, answer in made.items():
        opinion = checked.get(target, {})
        row = {
            "case": case.name, "group": case.group, "target": target, "seconds": round(spent / len(made), 1),
            "reason": answer.get("reason", ""), "route": answer.get("route", []), "proof_db": answer.get("db"),
            "lost": answer.get("lost", []), "check_db": opinion.get("db"), "problem": opinion.get("problem", ""),
            "least": opinion.get("least", 80.0),
        }  # fmt: skip
        row["status"] = status(row, answer)
        rows.append(row)
    if all(row["status"] != "wrong" for row in rows):
        shutil.rmtree(out, ignore_errors=True)
    return rows


def status(row: dict[str, Any], answer: dict[str, Any]) -> str:
    """verified, refused (with a reason), crashed (without), or wrong: packed, and the second opinion differs."""
    if "bundle" not in answer:
        return "crashed" if answer["crashed"] else "refused"
    good = row["check_db"] is not None and row["check_db"] >= row["least"] and not row["problem"]
    return "verified" if good else "wrong"


def prepare(case: Case) -> None:
    """Weights and files that the case starts from, made once by the checker."""
    if case.weights and not Path(case.weights).is_file():
        lite = ["lite", str(case.lite[0]), case.lite[1]] if case.lite else ["weights", case.model]
        subprocess.run([sys.executable, "-P", CHECKER, *lite, case.weights], check=True, timeout=SECONDS["check"])
    if case.example and not Path(case.example).is_file():
        bounds = [str(bound) for bound in case.scale]
        command = [sys.executable, "-P", CHECKER, "inputs", case.model, case.example, *bounds]
        subprocess.run(command, check=True, timeout=SECONDS["check"])
    if case.origin and not Path(case.model).is_file():
        shape = "x[1,3,48,192]"
        command = [BIN / "ovc", case.origin, "--input", shape, "--compress_to_fp16=False", "--output_model", case.model]
        subprocess.run(command, check=True, timeout=SECONDS["check"], stdout=subprocess.DEVNULL)


def export(case: Case, targets: list[str], out: Path) -> dict[str, dict[str, Any]]:
    """All targets in one call; where one is refused, each by itself, so that the others still get theirs."""
    flags = {case.flags(target) for target in targets}
    if len(flags) == 1 and len(targets) > 1:
        answers = run_export(case, targets, out)
        if all("bundle" in answer for answer in answers.values()):
            return answers
    made: dict[str, dict[str, Any]] = {}
    for target in targets:
        made.update(run_export(case, [target], out / target))
    return made


def run_export(case: Case, targets: list[str], out: Path) -> dict[str, dict[str, Any]]:
    """One call of the command line; each target's answer has a ``bundle``, or a ``reason``."""
    command = [BIN / "seatrial", "export", case.source, "--target", ",".join(targets), "-o", out, "--overwrite"]
    command += ["--json", "--timeout", "900", *case.flags(targets[0])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS["export"])
    except subprocess.TimeoutExpired:
        return {target: {"reason": f"took more than {SECONDS['export']} s", "crashed": True} for target in targets}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("[")]
        clean = any(line.startswith("error:") for line in lines) and "Traceback" not in done.stderr
        start = next((i for i, line in enumerate(lines) if line.startswith("error:")), -8)
        reason = " ".join(line.strip() for line in lines[start:] if not line.strip().startswith("log:"))
        return {target: {"reason": reason[:900], "crashed": not clean} for target in targets}
    answers: dict[str, dict[str, Any]] = {}
    for one in json.loads(done.stdout):
        parity = one["proof"]["parity"]
        db = parity["sqnr_db"]
        answers[one["target"]] = {"bundle": one["bundle"], "route": one["route"], "db": db, "lost": one["lost"]}
    return answers


def check(case: Case, bundles: dict[str, str], out: Path) -> dict[str, dict[str, Any]]:
    """The second opinion, in a process of its own."""
    asked = {**dataclasses.asdict(case), "bundles": bundles}
    return ask_checker("check", asked, out.with_suffix(".json")) or {
        target: {"db": None, "problem": "the checker gave no answer"} for target in bundles
    }


def ask_checker(command: str, asked: dict[str, Any], file: Path) -> dict[str, Any]:
    """What `coverage_check.py` answers to a case; nothing where it fails, and its words are shown."""
    file.write_text(json.dumps(asked), encoding="utf-8")
    line = [sys.executable, "-P", CHECKER, command, file]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS["check"])
    file.unlink()
    for said in done.stdout.splitlines():
        if said.startswith("ANSWER ") and not done.returncode:
            answer: dict[str, Any] = json.loads(said.removeprefix("ANSWER "))
            return answer
    print(done.stderr[-2000:], file=sys.stderr)
    return {}
