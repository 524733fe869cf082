"""`seatrial doctor`: known-bad versions are named with what to type, and nothing heavy is imported for it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from seatrial.cli import versions

TESTED = {
    "torch": "2.13.0+cpu",
    "torchvision": "0.28.0+cpu",
    "onnx": "1.23.2",
    "onnxscript": "0.7.2",
    "onnxruntime": "1.32.0",
    "openvino": "2026.4.1",
    "litert-torch": "0.10.0",
    "tensorflow-cpu": "2.21.0",
    "protobuf": "7.36.2",
    "numpy": "2.4.6",
}
BAD = [
    ({"onnxscript": "0.5.6"}, "broken", "batch norms"),
    ({"onnxscript": "0.7.1"}, "careful", "Gemm"),
    ({"torch": "2.15.0"}, "broken", "litert-torch"),
    ({"litert-torch": "0.8.0"}, "broken", "segmentation fault"),
    ({"tflite-runtime": "2.14.0"}, "broken", "numpy 1"),
    ({"onnxruntime-gpu": "1.32.0"}, "broken", "CUDA provider"),
    ({"onnxruntime": "1.18.1"}, "broken", "built for numpy 1"),
    ({"onnxruntime": "1.20.1"}, "careful", "IR version 11"),
    ({"torchvision": "0.28.0"}, "careful", "linked to CUDA"),
    ({"tensorflow": "2.18.0"}, "broken", "GetPrototype"),
    ({"openvino-dev": "2024.6.0"}, "broken", "openvino-dev ended"),
]


def test_the_tested_versions_are_known_to_be_good() -> None:
    assert versions.known_bad(TESTED) == []


@pytest.mark.parametrize(
    ("change", "level", "word"), BAD, ids=[min(change) + min(change.values()) for change, *_ in BAD]
)
def test_each_known_bad_version_is_named_with_its_source_and_what_to_type(
    change: dict[str, str], level: str, word: str
) -> None:
    rows = [row for row in versions.known_bad({**TESTED, **change}) if word in row["what"]]
    assert [row["level"] for row in rows] == [level]
    assert rows[0]["todo"] and all(told.startswith(("https://", "the metadata of ")) for told in rows[0]["source"])
    assert min(change.values()) in rows[0]["found"]


def test_every_entry_of_the_table_is_tried_here() -> None:
    entries = tomllib.loads(versions.FILE.read_text())["known"]
    assert len(entries) == len(BAD) and all(any(word in e["what"] for _, _, word in BAD) for e in entries)


def test_what_seatrial_itself_needs_is_checked() -> None:
    rows = versions.conflicts({**versions.installed(), "litert-torch": "0.12.0"})
    assert [row["what"] for row in rows if "litert-torch" in row["what"]] == ["seatrial needs litert-torch<0.11,>=0.10"]
    assert 'pip install "litert-torch<0.11,>=0.10"' in [row["todo"] for row in rows]


def test_the_board_extra_asks_for_numpy_1_only_where_its_runtime_is_installed() -> None:
    rows = versions.conflicts({**versions.installed(), "numpy": "2.4.6"})
    assert not [row for row in rows if row["what"] == "seatrial needs numpy<2"]


def _fake(folder: Path, name: str, version: str, *needs: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_a_broken_version_exits_1_and_says_what_to_type(cli, tmp_path: Path) -> None:
    _fake(tmp_path, "onnxscript", "0.5.6", "numpy<1")
    done = cli("doctor", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 1, done.err
    assert "BROKEN: onnxscript 0.5.6: torch's ONNX exporter" in done.out
    assert 'pip install "onnxscript>=0.7.2"' in done.out
    assert "https://github.com/pytorch/pytorch/issues/169178" in done.out
    assert "careful: numpy" in done.out and "onnxscript needs numpy<1" in done.out


def test_the_json_holds_every_table_and_nothing_missing_is_a_failure(cli) -> None:
    done = cli("doctor", "--json")
    facts = json.loads(done.out)
    assert done.code == int(any(p["level"] == "broken" for p in facts["problems"]))
    assert {"onnxruntime", "openvino", "tflite"} <= {t["name"] for t in facts["targets"]}
    assert {"onnx", "pt2", "tflite", "openvino"} <= {s["name"] for s in facts["sources"]}
    assert "onnx → openvino" in {c["name"] for c in facts["converters"]}
    assert {"onnx2tf", "tflite-runtime"} <= {e["name"] for e in facts["environments"]}
    for row in (*facts["sources"], *facts["converters"]):
        assert row["usable"] == (not row["missing"]) and bool(row["todo"]) == bool(row["missing"])


def test_doctor_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr))\n"
        "import seatrial.cli\nseatrial.cli.main(['doctor', '--json'])"
    )
    before = os.times()
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    after = os.times()
    loaded = set(ast.literal_eval(found.stderr.splitlines()[-1]))
    assert "rich" in loaded or "packaging" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "tensorflow", "numpy", "scipy"}
    # Of the processor, not of the clock: other tests run beside this one.
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 1.5


def test_devices_tells_runtimes_profiles_and_who_measures(cli, tmp_path: Path) -> None:
    env = {"SEATRIAL_LEASE_DIR": str(tmp_path)}
    found = json.loads(cli("doctor", "--devices", "--json", env=env).out)
    (local,) = found["devices"]
    assert {"cpu", "flags", "cores", "memory_gib"} <= local["identity"].keys()
    assert {"governor", "virtualisation", "load"} <= local["moment"].keys()
    assert {"onnxruntime", "openvino", "tflite"} <= {r["runtime"] for r in local["runtimes"]}
    assert all(r["version"] for r in local["runtimes"])
    assert {"all-cores", "one-core", "small"} <= {p["name"] for p in found["profiles"]}
    assert local["held"] is None
    script = "import sys, time\nfrom seatrial.devices import lease\n"
    script += "with lease.exclusive(purpose='a test'):\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", script], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        text = cli("doctor", "--devices", env=env).out
        assert f"process {holder.pid} holds it for a test" in text
    finally:
        holder.kill()
        holder.communicate()
    assert "lease           free" in cli("doctor", "--devices", env=env).out
