"""How often the gate is right on a busy machine, beside what other tools do in the same hour: `make bench-noise`.

Sessions are real comparisons of a chain of 100 equal blocks with itself and with chains that have exactly 1, 5 or 10
blocks more, while another process keeps one core busy. After each, every other tool measures the same two graphs one
after the other, as its users do. All of it adds up over runs in build/bench-noise. About two hours in all. `--minutes`
stops earlier. Exits 1 where the gate promised more than it held.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from common import heading
from overhead import to_tflite
from seatrial.core.ids import content_id
from seatrial.devices.facts import host_facts
from seatrial.devices.noise import BLOCKS, ROWS, WIDTH, Kind, Noise, Setup, keep, noise, recorded, write_chain
from seatrial.devices.stats import share_interval

OUT = Path("build/bench-noise")
BIN = Path(sys.executable).parent
WANTED = {0.0: 200, 0.01: 20, 0.05: 60, 0.10: 60}
PEER_TURNS = 40
PEER_KINDS = {"A/A": BLOCKS, "+5 %": BLOCKS + 5}
LIMITS = (1.05, 1.025)
VERDICTS = ("PASS", "REGRESS", "INCONCLUSIVE", "INVALID")
PACKAGES = ("seatrial", "onnxruntime", "openvino", "ai-edge-litert", "numpy")

TWENTY = """
import sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
rows, width = map(int, sys.argv[2:])
feed = {"x": numpy.random.default_rng(0).standard_normal((rows, width)).astype("float32")}
for _ in range(10):
    session.run(None, feed)
times = []
for _ in range(20):
    start = time.perf_counter()
    session.run(None, feed)
    times.append(time.perf_counter() - start)
print(1e3 * sum(times) / len(times))
"""


def twenty(model: Path) -> float:
    """The mean of 20 runs after 10 warm-ups, in ms."""
    return float(_run([sys.executable, "-P", "-c", TWENTY, model.with_suffix(".onnx"), str(ROWS), str(WIDTH)]))


def benchmark_app(model: Path) -> float:
    """OpenVINO's own tool for 3 s, its median, in ms."""
    words = ["-d", "CPU", "-hint", "none", "-nstreams", "1", "-nthreads", "1", "-t", "3", "-infer_precision", "f32"]
    said = _run([BIN / "benchmark_app", "-m", model.with_suffix(".onnx"), *words])
    # It tells microseconds where a model is fast.
    number, unit = re.findall(r"Median:\s+([\d.]+) (us|ms)", said)[0]
    return float(number) / {"us": 1000, "ms": 1}[unit]


def litert_benchmark(model: Path) -> float:
    """LiteRT's own tool as it comes, its mean, in ms."""
    report = OUT / "peers" / "litert.json"
    _run([BIN / "litert-benchmark", "--model", model.with_suffix(".tflite"), "--result_json", report])
    return float(json.loads(report.read_text())["latency"]["avg_ms"])


PEERS: dict[str, Callable[[Path], float]] = {
    "mean of 20 runs, ONNX Runtime": twenty,
    "benchmark_app -t 3, OpenVINO": benchmark_app,
    "litert-benchmark": litert_benchmark,
}


def _run(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


class Peers:
    """The other tools' turns, kept in a file of JSON lines."""

    def __init__(self, key: str) -> None:
        self.file, self.key = OUT / "peers.jsonl", key
        (OUT / "peers").mkdir(parents=True, exist_ok=True)
        self.turns = recorded(self.file, key)
        for blocks in PEER_KINDS.values():
            model = self.model(blocks)
            if not model.with_suffix(".onnx").exists():
                write_chain(model.with_suffix(".onnx"), blocks)
            if not model.with_suffix(".tflite").exists():
                to_tflite(model.with_suffix(".tflite"), blocks)

    @staticmethod
    def model(blocks: int) -> Path:
        """Without its suffix."""
        return OUT / "peers" / f"blocks{blocks}"

    def turn(self) -> None:
        """Each tool measures the base, then the other graph of the kind that had fewer turns."""
        count = {kind: sum(turn["kind"] == kind for turn in self.turns) for kind in PEER_KINDS}
        kind = min(count, key=lambda k: count[k])
        if count[kind] >= PEER_TURNS:
            return
        ratios = {}
        for name, measure in PEERS.items():
            base = measure(self.model(BLOCKS))
            ratios[name] = measure(self.model(PEER_KINDS[kind])) / base
        turn = {"key": self.key, "kind": kind, "ratios": ratios, "date": time.strftime("%Y-%m-%d")}
        keep(self.file, turn)
        self.turns.append(turn)

    def ratios(self, name: str, kind: str) -> list[float]:
        """All ratios of a tool."""
        return [turn["ratios"][name] for turn in self.turns if turn["kind"] == kind]


def gate_table(found: Noise) -> list[str]:
    """The gate's rows."""
    titles = ("sessions", "n", *VERDICTS, "right (95 %)", "off: median, largest", "half-width", "launches")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for kind in found.kinds:
        counts = " | ".join(str(kind.verdicts.get(v, 0)) for v in VERDICTS)
        off = f"{kind.off[0]:.2%}, {kind.off[1]:.2%}" if kind.off else "-"
        width = f"± {kind.half_width:.2%}" if kind.half_width is not None else "-"
        right = "-" if kind.name == "+1 %" else f"{kind.right.low:.1%} to {kind.right.high:.1%}"
        lines.append(f"| {kind.name} | {kind.sessions} | {counts} | {right} | {off} | {width} | {kind.launches:.1f} |")
    return lines


def peer_table(peers: Peers) -> list[str]:
    """How often the other tools' ratios would have been wrong, by two limits."""
    titles = [f"{word} at {limit - 1:.1%}" for limit in LIMITS for word in ("cried wolf", "missed +5 %")]
    lines = [f"| tool | A/A: median off, largest | {' | '.join(titles)} |", "|---" * (2 + len(titles)) + "|"]
    for name in PEERS:
        same, slower = peers.ratios(name, "A/A"), peers.ratios(name, "+5 %")
        if not same or not slower:
            continue
        off = [abs(ratio - 1) for ratio in same]
        cells = []
        for limit in LIMITS:
            cells.append(_share(sum(ratio > limit for ratio in same), len(same)))
            cells.append(_share(sum(ratio <= limit for ratio in slower), len(slower)))
        lines.append(f"| {name} | {statistics.median(off):.1%}, {max(off):.0%} | {' | '.join(cells)} |")
    return lines


def _share(count: int, n: int) -> str:
    interval = share_interval(count, n)
    return f"{count} of {n} ({interval.low:.0%} to {interval.high:.0%})"


def faults(kinds: Mapping[float, Kind]) -> list[str]:
    """What was promised and didn't hold."""
    same = kinds[0.0]
    bars = [
        ("A/A: REGRESS", same.verdicts.get("REGRESS", 0) <= 0.01 * same.sessions),
        ("A/A: PASS", same.verdicts.get("PASS", 0) >= 0.95 * same.sessions),
        ("A/A: INVALID", same.verdicts.get("INVALID", 0) <= 0.02 * same.sessions),
        ("A/A: median disagreement", same.off is not None and same.off[0] <= 0.005),
        ("A/A: largest disagreement", same.off is not None and same.off[1] <= 0.015),
        ("+5 %: REGRESS", kinds[0.05].right.centre >= 0.95),
        ("+10 %: REGRESS", kinds[0.10].right.centre == 1),
    ]
    few = [f"{kind.name}: {kind.sessions} of {WANTED[s]}" for s, kind in kinds.items() if kind.sessions < WANTED[s]]
    return [name for name, held in bars if not held] + few


def main() -> int:
    """Run what is missing, or as much as the minutes allow, then print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    minutes = parser.parse_args().minutes
    begun, setup = time.monotonic(), Setup(threads=1, busy=1)
    OUT.mkdir(parents=True, exist_ok=True)
    title = heading("The gate on a busy machine, beside other tools", "make bench-noise", PACKAGES)
    peers = Peers(content_id([host_facts()["identity"], *map(metadata.version, PACKAGES), BLOCKS, ROWS, WIDTH]))

    def between() -> None:
        peers.turn()
        if time.monotonic() - begun > 60 * minutes:
            raise KeyboardInterrupt

    def run(wanted: Mapping[float, int]) -> Noise:
        return noise(wanted, setup=setup, file=OUT / "sessions.jsonl", progress=_say, between=between)

    try:
        found = run(WANTED)
    except KeyboardInterrupt:
        found = run(dict.fromkeys(WANTED, 0))
    print(title)
    print("One core is kept busy by another process. A session is one `seatrial compare` of its default strength.\n")
    print("\n".join([*gate_table(found), "", *peer_table(peers)]))
    spent = sum(kind.minutes for kind in found.kinds)
    print(f"\n{spent:.0f} minutes of sessions.")
    wrong = faults({kind.slower: kind for kind in found.kinds})
    if wrong:
        print("NOT HELD: " + "; ".join(wrong))
    return 1 if wrong else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
