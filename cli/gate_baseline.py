"""Baselines: a git ref whose model is built again here and now, or a stored bundle by its hash."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.bundle import MANIFEST, Bundle
from ..core.errors import MissingPart, SeatrialError, UsageError
from ..core.ids import content_id, file_sha256
from ..core.paths import cache_dir, whole_folder

KEEP_DAYS = 30
DATA = ("calibration", "evaluate", "inputs")
"""Options of an export that name the user's files."""

Build = Callable[[dict[str, Any], Path], list[Bundle]]


@dataclass(frozen=True)
class Ref:
    """A commit, as the user named it."""

    text: str
    commit: str
    top: Path

    def __str__(self) -> str:
        return f"{self.text} ({self.commit[:12]})"

    def has(self, path: Path) -> bool:
        """Whether this file or folder of the working tree, or one at its place, is in the commit."""
        place = _within(path, self.top)
        return place is not None and _git("cat-file", "-e", f"{self.commit}:{place}", cwd=self.top).returncode == 0


class Refs:
    """Bundles of git refs, built at most once. A context manager: what is checked out goes when it ends.

    `build` exports a model with these parameters into a folder and gives its bundles.
    """

    def __init__(self, folder: Path, build: Build, say: Callable[[str], None]) -> None:
        self.folder, self.build, self.say = folder, build, say
        self._found: dict[str, Ref] = {}
        self._trees: dict[str, Path] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Refs:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def find(self, text: str) -> Ref:
        """The commit of a ref. UsageError where there is none, MissingPart without git."""
        if text not in self._found:
            self._found[text] = find_ref(text)
        return self._found[text]

    def bundles(self, ref: Ref, params: dict[str, Any]) -> list[Bundle]:
        """The model's bundles at `ref`, from the cache or made now by today's tools with today's options.

        Files that options name are the ref's where it has them, else today's: as in a checkout of the ref.
        """
        params = _placed(params, ref)
        place = cache_dir() / "baselines" / _key(params, ref)
        if found := _cached(place):
            self.say(f"the baseline of {ref} was built before")
            return found
        self.say(f"building the baseline of {ref}")
        tree = self._tree(ref)
        _forget_old(place.parent)
        with whole_folder(place) as part, _in_checkout(tree, ref.top):
            self.build(params, part / "made")
        return _bundles_in(place)

    def _tree(self, ref: Ref) -> Path:
        if ref.commit not in self._trees:
            self._trees[ref.commit] = self._stack.enter_context(checked_out(ref, self.folder / ref.commit))
        return self._trees[ref.commit]


def find_ref(text: str) -> Ref:
    """The commit that a git ref names in the repository of the working folder.

    Raises:
        MissingPart: git isn't installed.
        UsageError: this is no repository, or it doesn't have such a ref.
    """
    asked = f"--base-ref {text}"
    top = _git("rev-parse", "--show-toplevel")
    if top.returncode:
        found = (top.stderr.strip().splitlines() or ["no git repository"])[0]
        raise UsageError(asked, found, "run it in a clone of the repository, or give a bundle as BASE")
    commit = _git("rev-parse", "--verify", "--quiet", f"{text}^{{commit}}") if not text.startswith("-") else None
    if commit is None or commit.returncode:
        todo = "fetch it first (git fetch origin BRANCH); a CI job must check out more than one commit"
        raise UsageError(asked, "there is no such branch, tag or commit in this clone", todo)
    return Ref(text, commit.stdout.strip(), Path(top.stdout.rstrip("\n")))


@contextmanager
def checked_out(ref: Ref, folder: Path) -> Iterator[Path]:
    """The commit's files in `folder`; the repository itself, its index and its worktrees aren't touched."""
    tree, index = folder / "tree", folder / "index"
    tree.mkdir(parents=True)
    try:
        env = {"GIT_INDEX_FILE": str(index)}
        for words in (("read-tree", ref.commit), ("checkout-index", "--all", f"--prefix={tree}/")):
            done = _git(*words, cwd=ref.top, env=env)
            if done.returncode:
                raise UsageError(f"check out {ref}", done.stderr.strip(), "see what `git checkout` of it says")
        yield tree
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def by_hash(text: str, folder: Path | None) -> Path | None:
    """The stored bundle whose ``manifest.json`` has this SHA-256, or begins of it; None where none has.

    Raises:
        UsageError: no folder of baselines, or more than one bundle that it fits.
    """
    asked = f"--base-hash {text}"
    if not re.fullmatch("[0-9a-f]{6,64}", text):
        raise UsageError(asked, "not a hash", "give 6 or more hex digits of the bundle's manifest.sha256")
    if folder is None or not folder.is_dir():
        found = "no folder of baselines" if folder is None else f"no such folder: {folder}"
        raise UsageError(asked, found, "say where they are: --baselines DIR, or `baselines` below [compare]")
    fits = [file.parent for file in sorted(folder.rglob(MANIFEST)) if file_sha256(file).startswith(text)]
    if len({file_sha256(path / MANIFEST) for path in fits}) > 1:
        raise UsageError(asked, f"several bundles begin so: {', '.join(map(str, fits))}", "give more of the hash")
    return fits[0] if fits else None


def _git(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        full = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **(env or {})}
        return subprocess.run(["git", *words], cwd=cwd, env=full, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingPart("--base-ref", "git is not installed", "install git, or give a bundle as BASE") from None


def _within(path: Path, top: Path) -> str | None:
    """The path inside the repository, with slashes; None where it lies elsewhere."""
    with suppress(ValueError):
        place = Path(os.path.abspath(path)).resolve().relative_to(top.resolve())
        return place.as_posix()
    return None


def model_path(model: str) -> Path:
    """The file or folder of a model's text: ``FILE.py:function`` and ``hf:DIR`` name one too.

    Raises:
        UsageError: it is no file.
    """
    if model.startswith("timm:"):
        todo = "give a model of the repository, or bundles"
        raise UsageError(f"--base-ref for {model}", "the same at every ref: it is no file of the repository", todo)
    text = model.removeprefix("hf:")
    return Path(text.rpartition(":")[0] if ".py:" in text and not Path(text).exists() else text)


def _placed(params: dict[str, Any], ref: Ref) -> dict[str, Any]:
    """Parameters whose files hold in a checkout: relative where the ref has them, else today's by their full path."""

    def place(text: str, folders: bool = True) -> str:
        path = Path(text)
        if ref.has(path):
            return os.path.relpath(path) if path.is_absolute() else text
        return str(path.resolve()) if path.is_file() or (folders and path.exists()) else text

    file = model_path(params["model"])
    placed = {**params, "model": params["model"].replace(str(file), os.path.relpath(file))}
    placed |= {name: Path(place(str(params[name]))) for name in DATA if params.get(name)}
    args = [text.partition("=") for text in params["arg"]]
    placed["arg"] = tuple(f"{name}={place(value, False) if value else ''}" for name, _, value in args)
    return placed


def _key(params: dict[str, Any], ref: Ref) -> str:
    """Id of all that a baseline is made of: the commit, the options, today's files, every package, this CPU."""
    from ..devices.facts import host_facts

    values = [str(params[name]) for name in DATA if params.get(name)]
    values += [text.partition("=")[2] for text in params["arg"]]
    files = {value: _bytes_id(Path(value)) for value in values if os.path.isabs(value)}
    packages = sorted({f"{d.name} {d.version}" for d in importlib.metadata.distributions()})
    identity = host_facts()["identity"]
    where = _within(Path.cwd(), ref.top)
    options = {name: str(value) for name, value in params.items()}
    return content_id([ref.commit, where, options, files, packages, sys.version, identity["cpu"], identity["flags"]])


def _bytes_id(path: Path) -> list[list[str]]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [[str(file.relative_to(path)), file_sha256(file)] for file in files if file.is_file()]


def _cached(place: Path) -> list[Bundle] | None:
    """The bundles of an earlier build, each held against its hashes; None, and nothing left, where they are spoiled."""
    if not place.is_dir():
        return None
    try:
        found = _bundles_in(place)
        for bundle in found:
            bundle.check_files()
        os.utime(place)
        return found or None
    except (SeatrialError, OSError):
        shutil.rmtree(place, ignore_errors=True)
        return None


def _bundles_in(place: Path) -> list[Bundle]:
    return [Bundle.read(file.parent) for file in sorted(place.rglob(MANIFEST))]


def _forget_old(folder: Path) -> None:
    oldest = time.time() - KEEP_DAYS * 86400
    for place in folder.iterdir() if folder.is_dir() else ():
        with suppress(OSError):
            if place.stat().st_mtime < oldest:
                shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _in_checkout(tree: Path, top: Path) -> Iterator[None]:
    """Work in the checkout as in the working tree: in the same folder of it, with its own modules first on the path.

    A package of the repository that is installed to be edited would otherwise be today's.
    """
    where = _within(Path.cwd(), top) or "."
    own = _own_paths(sys.path, tree, top)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, *([before] if before else [])])
    try:
        with chdir(tree / where):
            yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _own_paths(paths: Sequence[str], tree: Path, top: Path) -> list[str]:
    places = [_within(Path(path), top) for path in paths if path]
    return [str(tree / place) for place in places if place is not None and (tree / place).is_dir()]
