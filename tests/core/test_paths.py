"""Outputs appear whole or not at all, and what stood there before stays until then."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from seatrial.core import paths
from seatrial.core.errors import NotWritten, UsageError


def ours(path: Path, text: str = "old") -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(text)
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_under_its_name_only_when_it_is_whole(tmp_path: Path):
    with paths.whole_folder(tmp_path / "deep/out") as part:
        (part / "a").write_text("1")
        assert not (tmp_path / "deep/out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep/out") == ["a"]


@pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path, end: type[BaseException]):
    out = ours(tmp_path / "out")
    with pytest.raises(end), paths.whole_folder(out) as part:
        (part / "a").write_text("1")
        assert (out / "manifest.json").read_text() == "old"
        raise end
    assert names(tmp_path) == ["out"]
    assert names(out) == ["manifest.json"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError(errno.EIO, "input/output error")])
def test_an_end_between_the_two_renames_brings_the_old_folder_back(tmp_path: Path, monkeypatch, end):
    out = ours(tmp_path / "out")
    rename = Path.rename

    def stumble(self: Path, to: Path) -> Path:
        if self.suffix == ".part":
            raise end
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", stumble)
    with pytest.raises((KeyboardInterrupt, NotWritten)), paths.whole_folder(out):
        pass
    assert names(tmp_path) == ["out"]
    assert (out / "manifest.json").read_text() == "old"


def test_the_new_folder_takes_the_place_of_the_old_one(tmp_path: Path):
    out = ours(tmp_path / "out")
    with paths.whole_folder(out) as part:
        (part / "new").touch()
    assert names(tmp_path) == ["out"]
    assert names(out) == ["new"]


def test_somebody_elses_manifest_is_not_ours(tmp_path: Path):
    """Web apps have a `manifest.json` too."""
    ours(tmp_path / "app", '{"schema": "https://json.schemastore.org/web-manifest", "name": "a"}')
    with pytest.raises(UsageError, match="not made by seatrial"):
        paths.check_free(tmp_path / "app", overwrite=True)


def test_a_link_keeps_naming_the_folder_that_is_replaced(tmp_path: Path):
    ours(tmp_path / "v3", '{"schema": "seatrial.bundle/1"}')
    (tmp_path / "latest").symlink_to("v3")
    paths.check_free(tmp_path / "latest", overwrite=True)
    with paths.whole_folder(tmp_path / "latest") as part:
        (part / "new").touch()
    assert names(tmp_path) == ["latest", "v3"]
    assert (tmp_path / "latest").is_symlink()
    assert names(tmp_path / "v3") == ["new"]


def test_the_system_refusing_is_one_clear_error(tmp_path: Path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    words = r"(?s)the output .*out.*No space left.*free some room"
    with pytest.raises(NotWritten, match=words), paths.whole_folder(tmp_path / "out"):
        raise full
    assert names(tmp_path) == []


def test_an_output_that_exists_needs_leave(tmp_path: Path):
    out = ours(tmp_path / "out", '{"schema": "seatrial.bundle/1"}')
    with pytest.raises(UsageError, match="--overwrite"):
        paths.check_free(out, overwrite=False)
    paths.check_free(out, overwrite=True)


def test_what_is_not_ours_is_never_replaced(tmp_path: Path):
    folder, file = tmp_path / "thesis", tmp_path / "file"
    folder.mkdir()
    (folder / "chapter1").touch()
    file.touch()
    for path in (folder, file):
        with pytest.raises(UsageError, match="not made by seatrial"):
            paths.check_free(path, overwrite=True)


def test_a_parent_that_is_a_file_is_refused_before_work_starts(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="file is not a folder"):
        paths.check_free(tmp_path / "file/out", overwrite=False)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_parent_that_nobody_can_write_to_is_refused_even_for_root():
    with pytest.raises(NotWritten, match=r"the folder /proc/\d+ is not writable"):
        paths.check_free(Path("/proc/self/out"), overwrite=False)


def test_looking_for_room_leaves_nothing(tmp_path: Path):
    paths.check_free(tmp_path / "a/b/out", overwrite=False)
    assert names(tmp_path) == []


def test_a_file_appears_whole_and_a_failure_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "out.npz"
    path.write_text("old")
    with pytest.raises(RuntimeError), paths.whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with paths.whole_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.npz"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path):
    with paths.whole_file(Path("/dev/null")) as part:
        part.write_text("gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_in_a_missing_folder_is_one_clear_error(tmp_path: Path):
    words = r"(?s)nowhere.*No such file"
    with pytest.raises(NotWritten, match=words), paths.whole_file(tmp_path / "nowhere/out") as part:
        part.write_text("x")
