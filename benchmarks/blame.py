"""Does blame name the right layer? `make bench-blame`: about 5 minutes, converts once. An argument sets the seeds.

Ten seeds for each target, or as many as are asked for; each plants one fault in a layer, drawn by chance, of the
converted file of EfficientNet-Lite0 with its real weights. A fault that leaves the outputs above the bar is none:
another one is drawn.

The truth doesn't come from what is tested: the file's n-th layer with weights belongs to the n-th convolution of the
network, which torch names, with the batch norm and the activation that follow it and that the file holds in the same
operation. The first name that blame gives must be among them; a fault in an activation must be told from one in
the convolution before it.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import faults
from common import heading
from seatrial.core.ids import files_id
from seatrial.exporter.api import source_of
from seatrial.exporter.artifact import Artifact, model_files
from seatrial.exporter.build import Builder
from seatrial.exporter.make import names_file
from seatrial.exporter.program import Program
from seatrial.exporter.proof import parity
from seatrial.exporter.proof.layers import Depth, explain
from seatrial.targets import get

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench-blame"
TARGETS = ("onnxruntime", "openvino", "tflite")
FACTORS = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)


def main() -> int:
    begun, seeds = time.time(), int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print(heading("Blame: one planted fault, EfficientNet-Lite0, real weights", "make bench-blame"))
    print("| target | seed | fault | planted in | named first | operation | dB before → at | outputs dB | s | right |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    right: Counter[str] = Counter()
    with Builder(OUT / "work") as builder:
        program = builder.capture(source_of(ROOT / "examples/lite0/model.py"), TARGETS)
        parts = network()
        for target in TARGETS:
            artifact = builder.convert(program, target)
            for seed in range(seeds):
                right[target] += trial(program, artifact, names_file(builder, artifact), seed, parts)
    print("\n| target | right layer named first |\n|---|---|")
    for target in TARGETS:
        print(f"| {target} | {right[target]} of {seeds} |")
    print(f"\n{(time.time() - begun) / 60:.1f} minutes.")
    return 0 if all(right[target] >= 0.9 * seeds for target in TARGETS) else 1


def network() -> list[tuple[str, ...]]:
    """Paths of convolution, batch norm and activation (where there is one), for each layer with weights in order."""
    import torch

    spec = importlib.util.spec_from_file_location("lite0", ROOT / "examples/lite0/model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, found = module.get_model(), []
    for path, part in model.named_modules():
        kind = type(part).__name__
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            found.append([path])
        elif kind == "BatchNormAct2d" or isinstance(part, torch.nn.ReLU6):
            found[-1].append(path)
    return [tuple(paths) for paths in found]


def trial(program: Program, artifact: Artifact, names: Path | None, seed: int, parts: list[tuple[str, ...]]) -> bool:
    """Plant, explain, print a row; whether the right layer was named first."""
    kind = faults.KINDS[seed % len(faults.KINDS)]
    broken, index, operation, db = planted(program, artifact, kind, seed)
    one = Artifact(artifact.target, broken, artifact.recipe, artifact.route, [], files_id(model_files(broken)))
    begun = time.time()
    depth = explain(program, one, OUT / "layers", names=names)
    seconds = time.time() - begun
    truth = expected(artifact.target, kind, index, parts)
    culprit = depth.culprit
    ok = culprit is not None and culprit.path in truth
    named = f"{culprit.path} ({culprit.type})" if culprit else "nobody"
    way = f"{culprit.before_db:.0f} → {culprit.at_db:.0f}" if culprit and culprit.at_db is not None else ""
    print(
        f"| {artifact.target} | {seed} | {kind} | {' + '.join(truth)} ({operation}) | {named} | "
        f"{culprit.operation if culprit else ''} | {way} | {db:.0f} | {seconds:.0f} | {'yes' if ok else 'NO'} |",
        flush=True,
    )
    keep(artifact.target, seed, depth)
    return ok


def planted(program: Program, artifact: Artifact, kind: str, seed: int) -> tuple[Path, int, str, float]:
    """A broken copy: its file, the place, the operation's name, and the SQNR of the worst output."""
    rng = random.Random(f"{artifact.target} {seed}")
    for _ in range(20):
        index = rng.randrange(faults.count(artifact.path, kind))
        out = OUT / "faults" / artifact.target / f"seed{seed}" / artifact.path.name
        operation = faults.plant(artifact.path, out, kind, index, rng.choice(FACTORS))
        db = outputs_db(program, artifact.target, out)
        if db < parity.BARS_DB["fp32"]:
            return out, index, operation, db
        print(f"<!-- {artifact.target} seed {seed}: {kind} in {operation} leaves {db:.0f} dB, drawn again -->")
    sys.exit(f"{artifact.target}: no {kind} that shows, of 20 drawn")


def outputs_db(program: Program, target: str, path: Path) -> float:
    """SQNR of the outputs over the main samples, in dB; of the worst output and sample."""
    runtime = get(target)
    session = runtime.open(path, runtime.strict("fp32"))
    found = [session.run(feed) for feed in program.feeds("main")]
    check = parity.compare("fp32", program.main, program.reference_outputs("main"), found)
    return min(out.worst_db for out in check.outputs if out.worst_db is not None)


def expected(target: str, kind: str, index: int, parts: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Modules that may be named for a fault."""
    if kind == "identity":
        with_activation = [paths for paths in parts if len(paths) == 3]
        return (with_activation[index][2],)
    # Only TFLite holds the activation in the operation of the convolution.
    return parts[index] if target == "tflite" else parts[index][:2]


def keep(target: str, seed: int, depth: Depth) -> None:
    """The whole result, for a closer look."""
    file = OUT / "depths" / f"{target}-{seed}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(depth.to_dict(), indent=1))
    for tensors in (OUT / "layers").glob(f"{target}-*.npz"):
        tensors.unlink()


if __name__ == "__main__":
    sys.exit(main())
