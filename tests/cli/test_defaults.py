"""`seatrial.toml` gives defaults for options; a key that no option has is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def dry_run(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "model.py").write_text("")
    command = [sys.executable, "-P", "-m", "seatrial", "export", "model.py", "--dry-run"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_defaults_reach_the_options_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("# not empty")
    (tmp_path / "seatrial.toml").write_text('[export]\ntarget = ["tflite", "openvino"]\ndry-run = true\n')
    command = [sys.executable, "-P", "-m", "seatrial", "export", "model.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "tflite" in found.stdout and "openvino" in found.stdout and "onnxruntime" not in found.stdout, found.stderr
    found = subprocess.run([*command, "--target", "onnxruntime"], cwd=tmp_path, capture_output=True, text=True)
    assert "onnxruntime" in found.stdout and "tflite" not in found.stdout


def test_an_unknown_key_is_refused_with_the_allowed_ones(tmp_path: Path) -> None:
    (tmp_path / "seatrial.toml").write_text("[export]\ntargt = 'tflite'\n")
    found = dry_run(tmp_path)
    assert found.returncode == 2
    assert "did you mean 'target'" in found.stderr and "calibration" in found.stderr


def test_an_unknown_table_and_broken_toml_are_refused(tmp_path: Path) -> None:
    (tmp_path / "seatrial.toml").write_text("[exprt]\n")
    assert "did you mean 'export'" in dry_run(tmp_path).stderr
    (tmp_path / "seatrial.toml").write_text("[export\n")
    found = dry_run(tmp_path)
    assert found.returncode == 2 and "not valid TOML" in found.stderr


def test_a_share_in_the_file_is_held_to_its_range(tmp_path: Path) -> None:
    """500 % would let every slowdown pass."""
    (tmp_path / "seatrial.toml").write_text("[compare]\ndetect = 5.0\n")
    command = [sys.executable, "-P", "-m", "seatrial", "compare", "a", "b"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 2 and "not between 0 and 100 %" in found.stderr


def test_no_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("# not empty")
    command = [sys.executable, "-P", "-m", "seatrial", "export", "model.py", "--target", ""]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 2 and "no target was named" in found.stderr


def test_what_is_no_table_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "seatrial.toml").write_text("export = 3\n")
    found = dry_run(tmp_path)
    assert found.returncode == 2 and "unexpected" not in found.stderr
    assert "it is 3, not a table" in found.stderr and "write [export]" in found.stderr


def test_a_lone_text_is_taken_for_an_option_that_repeats(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("# not empty")
    (tmp_path / "seatrial.toml").write_text('[export]\ntarget = "tflite,openvino"\ndry-run = true\narg = "a=1"\n')
    command = [sys.executable, "-P", "-m", "seatrial", "export", "model.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "tflite" in found.stdout and "openvino" in found.stdout and "onnxruntime" not in found.stdout
