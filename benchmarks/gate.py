"""How often the gate is right on this machine: A/A sessions, and sessions with exactly 10 % more work.

Each session is a real `seatrial compare` while another process keeps one core busy. Sessions add up over runs: what is
done stands in a file under --out and isn't done again. Prints a Markdown table; exits 1 where the gate was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import seatrial
from seatrial.core.ids import content_id
from seatrial.core.process import Child, child_env, module_command
from seatrial.devices.facts import host_facts
from seatrial.devices.sitting import PROTOCOL

BLOCKS = 10
"""Equal blocks in the base; the slower model has one more, so 10 % more work by arithmetic."""
ROWS, WIDTH = 48, 512
BUSY = "from seatrial.core.child import die_with_parent\ndie_with_parent()\nwhile True: pass"
KINDS = {"A/A": "same.onnx", "+10 %": "slower.onnx"}


def write_model(path: Path, blocks: int) -> None:
    """A chain of equal blocks, all with the same weights, so that a block more needs no more memory."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(WIDTH**0.5)
    nodes, at = [], "x"
    for i in range(blocks):
        out = "y" if i == blocks - 1 else f"t{i}"
        nodes += [helper.make_node("MatMul", [at, "w"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [out])]
        at = out
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def setup() -> dict[str, Any]:
    """What figures hold for; sessions of another setup don't count."""
    import onnxruntime

    versions = {"seatrial": seatrial.__version__, "onnxruntime": onnxruntime.__version__, "protocol": PROTOCOL}
    model = {"blocks": BLOCKS, "rows": ROWS, "width": WIDTH}
    return {"versions": versions, "model": model, "host": host_facts()["identity"]}


@contextmanager
def busy_core(folder: Path) -> Iterator[None]:
    """Another process that never rests."""
    child = Child([sys.executable, "-P", "-c", BUSY], folder / "busy.log")
    try:
        time.sleep(1)
        if child.process.poll() is not None:
            raise SystemExit(f"the busy process ended: {(folder / 'busy.log').read_text()}")
        yield
    finally:
        child.kill()


def session(folder: Path, kind: str, index: int, setup_id: str) -> dict[str, Any]:
    """One `seatrial compare`, and what is kept of it."""
    words = [str(folder / "base.onnx"), str(folder / KINDS[kind]), "--seed", str(1000 + index)]
    command = module_command("seatrial", "compare", *words, "--json")
    done = subprocess.run(command, capture_output=True, text=True, env=child_env({}), check=False)
    if not done.stdout:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    data = json.loads(done.stdout)
    keep = ("verdict", "reason", "ratio", "canary_log", "detectable", "seconds", "exit_code")
    notes = [n for launch in data["launches"] for arm in launch["arms"].values() for n in arm["notes"]]
    return {
        **{key: data[key] for key in keep},
        "setup": setup_id,
        "kind": kind,
        "index": index,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "launches": len(data["launches"]),
        "base_ms": data["base"]["latency"]["centre"] if data["base"]["latency"] else None,
        "steal_s": sum(n.get("steal_s", 0.0) for n in notes),
        "load": max((n.get("load_1m", 0.0) for n in notes), default=0.0),
    }


def finished(state: Path, setup_id: str) -> list[dict[str, Any]]:
    """The sessions of this setup that are done; a half-written last line isn't."""
    found = []
    for line in state.read_text().splitlines() if state.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["setup"] == setup_id:
            found.append(record)
    return found


def table(records: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The Markdown to publish."""
    from scipy.stats import binomtest

    host, versions = about["host"], about["versions"]
    dates = sorted(record["date"][:10] for record in records)
    minutes = sum(record["seconds"] for record in records) / 60
    lines = [
        f"{dates[0]} to {dates[-1]}, {minutes:.0f} minutes. {host['cpu']} ({', '.join(host['flags'])}), "
        f"{host['cores']} cores, one kept busy by another process. seatrial {versions['seatrial']}, "
        f"protocol {versions['protocol']}, onnxruntime {versions['onnxruntime']}.",
        "",
        "| sessions | n | PASS | REGRESS | INCONCLUSIVE | INVALID | right (95 %) | launches | ratio: median, range |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        of = [record for record in records if record["kind"] == kind]
        if not of:
            continue
        count = Counter(record["verdict"] for record in of)
        right = count["PASS" if kind == "A/A" else "REGRESS"]
        interval = binomtest(right, len(of)).proportion_ci()
        ratios = [record["ratio"][0] for record in of if record["ratio"]]
        span = f"{statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}" if ratios else "-"
        verdicts = " | ".join(str(count[v]) for v in ("PASS", "REGRESS", "INCONCLUSIVE", "INVALID"))
        launches = statistics.mean(record["launches"] for record in of)
        share = f"{interval.low:.0%} to {interval.high:.0%}"
        lines.append(f"| {kind} | {len(of)} | {verdicts} | {share} | {launches:.1f} | {span} |")
    return "\n".join(lines)


def faults(records: list[dict[str, Any]], wanted: dict[str, int]) -> list[str]:
    """What was promised and didn't hold."""
    found = []
    count = {kind: Counter(r["verdict"] for r in records if r["kind"] == kind) for kind in KINDS}
    same, slower = count["A/A"], count["+10 %"]
    found += [f"A/A: {same['REGRESS']} REGRESS"] if same["REGRESS"] else []
    if (other := same.total() - same["PASS"]) > 1:
        found.append(f"A/A: {other} sessions did not PASS")
    if (missed := slower.total() - slower["REGRESS"]) > 0:
        found.append(f"+10 %: {missed} sessions did not REGRESS")
    for kind, n in wanted.items():
        if count[kind].total() < n:
            found.append(f"{kind}: only {count[kind].total()} of {n} sessions")
    return found


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench-gate"))
    parser.add_argument("--same", type=int, default=20, help="A/A sessions")
    parser.add_argument("--slower", type=int, default=10, help="sessions with 10 %% more work")
    arguments = parser.parse_args()
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    for name, blocks in (("base", BLOCKS), ("same", BLOCKS), ("slower", BLOCKS + 1)):
        write_model(folder / f"{name}.onnx", blocks)
    about = setup()
    setup_id, state = content_id(about), folder / "sessions.jsonl"
    wanted = {"A/A": arguments.same, "+10 %": arguments.slower}
    done = {(record["kind"], record["index"]) for record in finished(state, setup_id)}
    todo = [(kind, i) for kind, n in wanted.items() for i in range(n) if (kind, i) not in done]
    with busy_core(folder):
        for count, (kind, index) in enumerate(todo, 1):
            record = session(folder, kind, index, setup_id)
            with state.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"{count} of {len(todo)}: {kind} {index}: {record['reason']}", file=sys.stderr, flush=True)
    records = finished(state, setup_id)
    print(table(records, about))
    if wrong := faults(records, wanted):
        raise SystemExit("WRONG: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
