"""The workflows of examples/ci, run step by step in a fresh clone of a repository with a planted regression."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOML = """
[compare]
quick = true

[compare.tiny]
model = "tiny.onnx"
"""

# Real exports and real workers; but a block lasts as long as the model has multiplications, whatever else runs here.
SEATRIAL = """#!{python} -P
import pathlib, random, sys
from seatrial import cli
from seatrial.devices import family, gate, launches

rng = random.Random(1)


def block(self):
    ms = pathlib.Path(self.arm.artifact).read_bytes().count(b"MatMul") * rng.gauss(1, 1e-5)
    self.run.blocks.append([int(1e6 * ms)] * 3)
    self.run.notes.append({{}})


launches.OpenArm.block = block
family.QUICK_LOOKS = (gate.Look(2, 1.0),)
sys.exit(cli.main())
"""


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Callable[..., Path]) -> Path:
    """A repository: a model, then one with twice the layers, then the first again."""
    pytest.importorskip("onnxruntime")
    repo = tmp_path_factory.mktemp("history")
    git(repo, "init", "-q", "-b", "main")
    (repo / "seatrial.toml").write_text(TOML)
    for repeat, branch in ((3, "first"), (6, "slower"), (3, "mended")):
        tiny_onnx(repo / "tiny.onnx", repeat=repeat)
        git(repo, "add", ".")
        git(repo, "commit", "-q", "-m", branch)
        git(repo, "branch", branch)
    return repo


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A cache that jobs share, as CI restores it."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


def clone(history: Path, branch: str, folder: Path) -> Path:
    subprocess.run(["git", "clone", "-q", "--branch", branch, str(history), str(folder)], check=True)
    return folder


def install(place: Path) -> None:
    """What the cache of the environment gives a later job."""
    (place / "bin").mkdir(parents=True)
    (place / "bin/seatrial").write_text(SEATRIAL.format(python=sys.executable))
    (place / "bin/seatrial").chmod(0o755)


def shell(script: str, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, **env}
    return subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=cwd, env=full, capture_output=True, text=True)


def workflow(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / "examples/ci" / name).read_text())


def test_a_cached_environment_belongs_to_the_python_and_the_versions_that_it_was_made_of():
    steps = workflow("github/latency.yml")["jobs"]["compare"]["steps"]
    (key,) = [step["with"]["key"] for step in steps if step.get("id") == "environment"]
    assert "steps.python.outputs.python-version" in key
    assert "hashFiles('latency-requirements.txt', 'constraints.txt')" in key
    assert set(re.findall(r"steps\.(\w+)\.", json.dumps(steps))) == {step["id"] for step in steps if "id" in step}
    cached, _ = workflow("gitlab/.gitlab-ci.yml")["latency"]["cache"]
    assert cached["key"]["files"] == ["latency-requirements.txt", "constraints.txt"]


@pytest.mark.parametrize(("branch", "code"), [("slower", 1), ("mended", 0)])
def test_the_github_workflow_is_red_for_the_planted_regression_and_green_for_the_way_back(
    branch, code, history, shared, tmp_path
):
    job = workflow("github/latency.yml")
    assert job["permissions"] == {"contents": "read"} and "secrets" not in json.dumps(job)
    repo, home = clone(history, branch, tmp_path / "clone"), tmp_path / "home"
    install(home / "latency")
    env = {"HOME": str(home), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), **shared}
    cached = "steps.environment.outputs.cache-hit != 'true'"
    steps = [step for step in job["jobs"]["compare"]["steps"] if "run" in step and step.get("if") != cached]
    assert [step["name"] for step in steps] == ["Compare"]
    done = shell(steps[0]["run"], repo, env)
    assert done.returncode == code, done.stdout + done.stderr
    summary = (tmp_path / "summary.md").read_text()
    suite = ElementTree.parse(repo / "latency/junit.xml").getroot()[0]
    (row,) = json.loads((repo / "latency/benchmark.json").read_text())
    assert (row["name"], row["unit"], row["value"]) == ("tiny", "ms", pytest.approx(6.0 if code else 3.0, rel=1e-3))
    found = json.loads((repo / "latency/compare.json").read_text())
    assert found["exit_code"] == code
    if code:
        assert "MatMul: 3 nodes in the base, 6 in the candidate" in done.stdout
        assert "MatMul: 3 nodes in the base, 6 in the candidate" in summary and "**REGRESS**" in summary
        assert (suite.get("failures"), suite[0][0].tag) == ("1", "failure")
        assert "MatMul: 3 nodes" in (suite[0][0].text or "")
    else:
        assert done.stdout.startswith("PASS:") and "| PASS |" in summary
        assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "0")
    assert job["jobs"]["compare"]["steps"][-3]["with"]["path"] == "~/.cache/seatrial/baselines"
    assert list(Path(shared["XDG_CACHE_HOME"], "seatrial/baselines").iterdir())
    left = subprocess.run(["git", "status", "--porcelain"], cwd=repo, capture_output=True, text=True).stdout
    assert left.split() == ["??", "latency/"]


def test_the_gitlab_job_runs_in_another_clone_with_the_baseline_of_before(history, shared, tmp_path):
    job = workflow("gitlab/.gitlab-ci.yml")["latency"]
    repo = clone(history, "mended", tmp_path / "clone")
    install(repo / ".latency")
    done = shell("\n".join(job["script"]), repo, {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "origin/first", **shared})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was built before" in done.stderr
    assert (job["variables"]["XDG_CACHE_HOME"], job["cache"][1]["paths"]) == (
        "$CI_PROJECT_DIR/.cache",
        [".cache/seatrial/baselines/"],
    )
    assert (repo / job["artifacts"]["reports"]["junit"]).is_file() and (repo / "latency/summary.md").is_file()
