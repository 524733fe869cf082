"""Which models export to which targets: `python benchmarks/coverage.py --write docs/coverage.md`.

Each case is exported by the command line and each bundle is held against its source once more by
`coverage_check.py`, which doesn't import seatrial. Answers are kept in build/coverage/results.jsonl, a line per model
and target: what was answered with the same versions isn't asked again. `--only WORD` takes the cases whose name or
group has it, `--again WORD` asks those anew, `--table` asks nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from coverage_cases import MADE, Case, cases
from coverage_run import ask

DATA = Path("demo/data")
RESULTS = MADE / "results.jsonl"
PACKAGES = (
    "torch", "timm", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "ai-edge-litert", "litert-torch",
    "tensorflow-cpu", "keras", "tf2onnx", "numpy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that decide what a converter can do; an absent one is "-"."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def results() -> dict[tuple[str, str], dict[str, Any]]:
    """The last answer for each case and target."""
    if not RESULTS.is_file():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {(row["case"], row["target"]): row for row in rows}


def work(chosen: Iterable[Case], again: str | None) -> None:
    """Ask what isn't answered yet."""
    here = versions()
    for case in chosen:
        have = results()
        redo = again is not None and again in f"{case.name} {case.group}"
        left = [t for t in case.targets if redo or have.get((case.name, t), {}).get("versions") != here]
        if not left:
            continue
        rows = ask(case, left)
        with RESULTS.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({**row, "versions": here, "date": time.strftime("%Y-%m-%d")}) + "\n")
        says = "; ".join(f"{r['target']} {r['status']} {r.get('check_db') or r['reason'][:120]}" for r in rows)
        print(f"{time.strftime('%H:%M:%S')} {case.name}: {says}", flush=True)


def main() -> int:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--only", default="", help="cases whose name or group has this in it")
    parser.add_argument("--again", help="cases to ask anew")
    parser.add_argument("--table", action="store_true", help="ask nothing, write the table")
    parser.add_argument("--write", type=Path, help="the page")
    options = parser.parse_args()
    (MADE / "bundles").mkdir(parents=True, exist_ok=True)
    chosen = [case for case in cases() if options.only in f"{case.name} {case.group}"]
    if not options.table:
        work(chosen, options.again)
        if not options.only:
            from coverage_int8 import compare

            compare(DATA)
    if options.write:
        from coverage_table import page

        options.write.write_text(page(list(cases()), results(), versions()), encoding="utf-8")
    rows = [row for row in results().values() if row["case"] in {case.name for case in chosen}]
    return 1 if any(row["status"] in ("wrong", "crashed") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
