"""`seatrial bench --history`: what a store tells, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seatrial.devices.store import Store


def fill(path: Path) -> None:
    """Twelve sessions of one model; from the seventh on it takes a tenth longer, in a new file."""
    store = Store(path)
    for i in range(12):
        late = i >= 6
        run = {"name": "m", "same": "x", "blocks": [[2_200_000 if late else 2_000_000] * 3] * 2}
        facts = {
            "identity": {"cpu": "A CPU"},
            "runtime": {"name": "onnxruntime", "version": "1.0"},
            "arm": {"precision": "fp32", "settings": {"threads": 1}},
        }
        key = {"settings": "s", "shapes": "s", "fingerprint": "here", "protocol": 1, "launch": 0}
        row = {"artifact": "two" if late else "one", "session": str(i), "arm": "m.onnx", "status": "ok", "cost_s": 1.0}
        store.add([{**key, **row, "created": 1e9 + 86400 * i, "facts": facts, "samples": {"run": run}}])
    store.close()


def test_a_change_is_dated_and_told_with_its_size(cli: Any, tmp_path: Path) -> None:
    fill(tmp_path / "facts.db")
    done = cli("bench", "--history", "--store", "facts.db", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "m.onnx: onnxruntime 1.0, 1 thread, on A CPU" in done.out
    assert "2001-09-15" in done.out and "2.000 to 2.200 ms (+10.0%); the files changed too" in done.out
    assert "never its verdict" in done.out
    series = json.loads(cli("bench", "m.onnx", "--history", "--store", "facts.db", "--json", cwd=tmp_path).out)[
        "series"
    ]
    assert [change["at"] for change in series[0]["changes"]] == [6]


def test_what_history_cannot_show_is_one_clear_error(cli: Any, tmp_path: Path) -> None:
    cli("bench", "--history", cwd=tmp_path).fails(2, "--store")
    cli("bench", "--history", "--store", "absent.db", cwd=tmp_path).fails(2, "absent.db", "no such file")
    assert not (tmp_path / "absent.db").exists()
    cli("bench", cwd=tmp_path).fails(2, "give bundles or model files")
    fill(tmp_path / "facts.db")
    cli("bench", "n.onnx", "--history", "--store", "facts.db", cwd=tmp_path).fails(2, "it has: m.onnx")
    Store(tmp_path / "empty.db").close()
    cli("bench", "--history", "--store", "empty.db", cwd=tmp_path).fails(4, "holds no bench")
