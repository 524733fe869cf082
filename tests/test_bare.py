"""With no extra installed, the package imports, helps and diagnoses, and pulls in no heavy library."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "onnx", "tensorflow", "onnxruntime", "openvino", "ai_edge_litert"}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of an environment with seatrial and what it can't do without."""
    folder = tmp_path_factory.mktemp("bare")
    left = shutil.ignore_patterns(".*", "build", "demo", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=left)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    pip = [str(folder / "env/bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(source)], check=True)
    return folder / "env" / "bin"


def run(bare: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([str(bare / arguments[0]), *arguments[1:]], capture_output=True, text=True, env=env)


def test_import_pulls_in_nothing_heavy(bare: Path) -> None:
    found = run(bare, "python", "-P", "-c", "import seatrial, sys; print([m.split('.')[0] for m in sys.modules])")
    assert not HEAVY & set(ast.literal_eval(found.stdout)), found.stderr


def test_help_and_doctor_work_and_say_what_to_type(bare: Path) -> None:
    assert "export" in run(bare, "seatrial", "--help").stdout
    found = run(bare, "seatrial", "doctor", "--json")
    targets = {target["name"]: target for target in json.loads(found.stdout)["targets"]}
    assert targets["openvino"]["version"] == ""
    assert 'pip install "seatrial[openvino]"' in targets["openvino"]["todo"]
    assert run(bare, "seatrial", "doctor").returncode == 0


def test_a_missing_part_is_an_error_with_its_command(bare: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text("def get_model(): ...\ndef get_args(): ...\n")
    found = run(bare, "seatrial", "export", str(model), "--target", "openvino", "-o", str(tmp_path / "out"))
    assert found.returncode == 5
    assert 'pip install "seatrial[openvino]"' in found.stderr and "Traceback" not in found.stderr
