"""Baselines: a git ref whose model is built again, a stored bundle by its hash, and each way in which there is none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from seatrial.cli import gate_baseline
from seatrial.cli.gate_baseline import Refs, by_hash, find_ref
from seatrial.core.bundle import Bundle
from seatrial.core.errors import MissingPart, UsageError
from seatrial.core.ids import file_sha256
from seatrial.devices.gate import Decision, Verdict

PARAMS: dict[str, Any] = {"model": "model.txt", "arg": (), "calibration": None, "evaluate": None, "inputs": None}


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits of `model.txt`; the working tree is dirty, and is the working folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for text in ("2", "3"):
        (folder / "model.txt").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", text)
    (folder / "model.txt").write_text("4")
    (folder / "untracked.txt").write_text("today's")
    monkeypatch.chdir(folder)
    return folder


class Built:
    """Stands for an export: a bundle with as many blocks as the model's file says, and a note of what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any], str, str]] = []

    def __call__(self, params: dict[str, Any], out: Path) -> list[Bundle]:
        text = Path(params["model"]).read_text()
        self.seen.append((text, params, os.getcwd(), os.environ.get("PYTHONPATH", "")))
        return [Bundle.read(tiny.write_bundle(out, int(text)))]


@pytest.fixture
def refs(tmp_path: Path) -> Callable[[Built], Refs]:
    return lambda build: Refs(tmp_path / "work", build, lambda text: None)


def test_a_ref_is_built_from_its_own_files_and_nothing_of_it_is_left(repo, refs, tmp_path):
    build, before = Built(), git(repo, "status", "--porcelain")
    with refs(build) as made:
        (bundle,) = made.bundles(made.find("HEAD~1"), PARAMS)
        bundle.check_files()
    assert build.seen[0][0] == "2" and not Path(build.seen[0][2]).exists()
    assert not list((tmp_path / "work").iterdir())
    assert os.getcwd() == str(repo) and git(repo, "status", "--porcelain") == before
    assert (repo / "model.txt").read_text() == "4" and git(repo, "worktree", "list").count("\n") == 1


def test_it_is_built_once_for_the_same_commit_and_options(repo, refs, monkeypatch):
    build = Built()
    for ref, more in (("HEAD~1", {}), ("main~1", {}), ("HEAD", {}), ("HEAD", {"threads": 2}), ("HEAD", {})):
        with refs(build) as made:
            made.bundles(made.find(ref), {**PARAMS, **more})
    assert [text for text, *_ in build.seen] == ["2", "3", "3"]
    monkeypatch.setattr(gate_baseline.importlib.metadata, "distributions", list)  # other versions
    with refs(build) as made:
        made.bundles(made.find("HEAD"), PARAMS)
    assert len(build.seen) == 4


def test_a_spoiled_one_is_built_again_and_a_failed_one_leaves_nothing(repo, refs, tmp_path):
    build = Built()
    with refs(build) as made:
        (bundle,) = made.bundles(made.find("HEAD"), PARAMS)
        bundle.model.write_bytes(b"spoiled")
        made.bundles(made.find("HEAD"), PARAMS)[0].check_files()
        assert len(build.seen) == 2
        with pytest.raises(ValueError, match="x"):
            (repo / "model.txt").write_text("x")
            git(repo, "commit", "-q", "-a", "-m", "x")
            made.bundles(made.find("main"), PARAMS)
    assert len(list((tmp_path / "cache/seatrial/baselines").iterdir())) == 1
    assert not list((tmp_path / "work").iterdir())


def test_files_that_options_name_are_the_refs_where_it_has_them_else_todays(repo, refs):
    build = Built()
    options = {"calibration": Path("untracked.txt"), "arg": ("a=model.txt", "b=untracked.txt", "c=4", "d=")}
    with refs(build) as made:
        made.bundles(made.find("HEAD"), {**PARAMS, **options, "model": str(repo / "model.txt")})
        seen = build.seen[0][1]
        assert (seen["calibration"], seen["model"]) == (repo / "untracked.txt", "model.txt")
        assert seen["arg"] == ("a=model.txt", f"b={repo}/untracked.txt", "c=4", "d=")
        (repo / "untracked.txt").write_text("other data")  # another baseline
        made.bundles(made.find("HEAD"), {**PARAMS, **options, "model": str(repo / "model.txt")})
    assert len(build.seen) == 2


def test_packages_of_the_repository_that_are_installed_to_be_edited_are_the_refs(repo, refs, monkeypatch):
    (repo / "src").mkdir()
    (repo / "src/mine.py").write_text("")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "a package")
    monkeypatch.syspath_prepend(str(repo / "src"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    build = Built()
    with refs(build) as made:
        made.bundles(made.find("HEAD"), PARAMS)
    where = build.seen[0][2]
    assert build.seen[0][3].split(os.pathsep)[0] == f"{where}/src"
    assert "PYTHONPATH" not in os.environ


def test_a_ref_that_is_not_there_is_a_usage_error(repo):
    for text in ("no-such", "-x", "HEAD~9", "HEAD:model.txt"):
        with pytest.raises(UsageError, match="no such branch, tag or commit") as error:
            find_ref(text)
        assert "more than one commit" in error.value.todo


def test_outside_of_a_repository_and_without_git_it_says_so(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPart, match="git is not installed"):
        find_ref("HEAD")
    monkeypatch.undo()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not a git repository"):
        find_ref("HEAD")


def test_a_stored_bundle_is_found_by_its_hash(tmp_path):
    one, other = (tiny.write_bundle(tmp_path / "stored" / name, repeat) for name, repeat in (("a", 2), ("b/c", 3)))
    stored = tmp_path / "stored"
    text = file_sha256(other / "manifest.json")
    assert by_hash(text, stored) == by_hash(text[:8], stored) == other != one
    assert by_hash("0" * 64, stored) is None
    for given, folder, words in (
        ("xyz", stored, "6 or more hex digits"),
        (text[:5], stored, "6 or more hex digits"),
        (text, None, "--baselines DIR"),
        (text, tmp_path / "absent", "no such folder"),
    ):
        with pytest.raises(UsageError) as error:
            by_hash(given, folder)
        assert words in str(error.value)


def test_the_command_with_a_hash(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "lease"))
    stored, candidate = tiny.write_bundle(tmp_path / "stored/a"), tiny.write_bundle(tmp_path / "candidate", 3)
    monkeypatch.setattr("seatrial.devices.compare.decide", lambda *_: Decision(Verdict.PASS, "for a test"))
    text = file_sha256(stored / "manifest.json")[:10]
    done = main("compare", "--base-hash", text, "--baselines", "stored", candidate, "--quick")
    assert done.code == 0 and "(by its hash)" in done.out, done.err
    done = main("compare", "--base-hash", "0" * 10, "--baselines", "stored", candidate)
    assert done.code == 4 and "NEW: no bundle in stored has the hash 0000000000" in done.out


def test_a_bundle_of_another_schema_and_stored_figures_are_no_baseline(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, candidate = tiny.write_bundle(tmp_path / "old"), tiny.write_bundle(tmp_path / "candidate")
    manifest = json.loads((old / "manifest.json").read_text()) | {"schema": "seatrial.bundle/0"}
    (old / "manifest.json").write_text(json.dumps(manifest))
    (old / "manifest.sha256").unlink()
    done = main("compare", old, candidate)
    done.fails(2, "seatrial.bundle/0", "this version reads seatrial.bundle/1")
    for name in ("compare.json", "facts.db"):
        (tmp_path / name).write_text("{}")
        main("compare", name, candidate).fails(2, "stored figures are no baseline", "another machine", "--base-ref")


def test_at_the_ref_there_is_no_model_or_none_that_can_be_built(main, repo, tiny_onnx):
    tiny_onnx(repo / "new.onnx")
    done = main("compare", "--base-ref", "HEAD", "new.onnx")
    assert done.code == 4 and "NEW: there is no new.onnx at HEAD" in done.out, done.err
    (repo / "new.onnx").write_bytes(b"broken")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "broken")
    tiny_onnx(repo / "new.onnx")
    done = main("compare", "--base-ref", "HEAD", "new.onnx", "--json", "-")
    assert done.code == 4 and "MISSING: the baseline can't be built at HEAD" in done.err
    assert json.loads(done.out)["benchmarks"][0]["comparison"]["verdict"] == "MISSING"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--base-ref", "no-such", "model.py"], "no such branch"),
        (["--base-ref", "HEAD", "timm:resnet18?weights=random"], "the same at every ref"),
        (["--base-ref", "HEAD", "../other.py"], "no such file"),
        (["model.py"], "--base-ref REF with a MODEL"),
        (["--base-ref", "HEAD", "a", "b"], "leave one away"),
        (["--base-ref", "HEAD", "--base-hash", "1a2b3c", "model.py"], "give one"),
        (["--target", "tflite", "a", "b"], "leave one away"),
        (["--target", "tflite"], "entries have keys of their own"),
        (["a", "b", "c"], "3 paths"),
    ],
)
def test_words_that_do_not_go_together_exit_2(words, found, main, repo):
    (repo / "model.py").write_text("# a model")
    done = main("compare", *words)
    assert done.code == 2 and found in done.err, done.err
