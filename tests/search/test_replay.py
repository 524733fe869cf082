"""A user's own function over stored answers: each call on its own, and only as it was when it was added."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core.errors import ChildFailed, UsageError
from seatrial.core.ids import file_sha256
from seatrial.search.replay import function_values

MEAN = "def score(outputs, labels):\n    return float(outputs.mean())\n"
WAITS = f"""
import pathlib, time

here = pathlib.Path(__file__).parent
(here / "begun").touch()
end = time.monotonic() + 30
while not (here / "go").exists() and time.monotonic() < end:
    time.sleep(0.01)

{MEAN}
"""


def written(path: Path, text: str) -> dict[str, Any]:
    """A function as an objective keeps it."""
    path.write_text(text)
    return {"path": str(path), "name": "score", "sha256": file_sha256(path)}


def answers(level: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of one candidate: outputs (4, 3), labels (4,)."""
    return {"one": (np.full((4, 3), level), np.zeros(4, int))}


def test_two_processes_at_one_study_do_not_get_each_other_s_answers(tmp_path: Path) -> None:
    """The first one's process has begun and has read nothing yet while the second one's runs from begin to end."""
    waits, other = written(tmp_path / "waits.py", WAITS), written(tmp_path / "other.py", MEAN)
    (tmp_path / "work").mkdir()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(function_values, tmp_path / "work", waits, answers(1.0))
        end = time.monotonic() + 30
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < end and not first.done()
            time.sleep(0.01)
        assert function_values(tmp_path / "work", other, answers(2.0))["one"].value == 2.0
        (tmp_path / "go").touch()
        assert first.result()["one"].value == 1.0
    assert not list((tmp_path / "work").iterdir()), "nothing is left of them"


def test_a_failed_call_leaves_its_log_alone(tmp_path: Path) -> None:
    wrong = written(
        tmp_path / "wrong.py", "def score(outputs, labels):\n    print('so far')\n    return outputs.nothing\n"
    )
    (tmp_path / "work").mkdir()
    with pytest.raises(ChildFailed) as error:
        function_values(tmp_path / "work", wrong, answers(1.0))
    assert list((tmp_path / "work").iterdir()) == [Path(str(error.value.log))]
    assert "so far" in Path(str(error.value.log)).read_text()


def test_a_function_that_was_edited_or_is_gone_is_not_the_one_that_was_added(tmp_path: Path) -> None:
    function = written(tmp_path / "mine.py", MEAN)
    (tmp_path / "work").mkdir()
    (tmp_path / "mine.py").write_text(MEAN.replace("mean", "max"))
    with pytest.raises(UsageError, match="its file has changed") as error:
        function_values(tmp_path / "work", function, answers(1.0))
    assert "another name" in error.value.todo
    (tmp_path / "mine.py").unlink()
    with pytest.raises(UsageError, match="no such file"):
        function_values(tmp_path / "work", function, answers(1.0))
