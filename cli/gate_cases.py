"""What one run of `seatrial compare` compares: a model against a git ref or a stored bundle, or the file's entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.config import read_toml, refuse_unknown
from ..core.errors import Interrupted, NothingMeasured, SeatrialError, UsageError
from ..devices.family import HOW
from . import DEFAULTS, export, ui
from .gate_baseline import Ref, Refs, by_hash, model_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.bundle import Bundle
    from ..devices.family import Case
    from ..devices.gate import Decision

_NOT_HERE = {"output", "overwrite", "as_json", "dry_run", "explain", "in_process", "bucket"}
_EXPORT = [p for p in export.command.params if isinstance(p, click.Option) and p.name not in _NOT_HERE]
_OWN = [
    click.Option(["--model"], default=""),
    click.Option(["--candidate"], default=""),
    click.Option(["--base"], default=""),
    click.Option(["--base-ref"]),
    click.Option(["--base-hash"]),
    click.Option(["--tolerate"], type=ui.Percent()),
    click.Option(["--detect"], type=ui.Percent()),
    click.Option(["--device"]),
    click.Option(["--python"]),
    click.Option(["--base-python"]),
]
MEASURING = ("tolerate", "detect", *HOW)
"""Options of an entry that a `Case` takes."""
_ENTRY = click.Command("entry", params=[*_OWN, *_EXPORT])
_OPTIONS = {word.removeprefix("--"): p for p in (*_OWN, *_EXPORT) for word in p.opts if word.startswith("--")}


@dataclass(frozen=True)
class Given:
    """What the command line says for all entries; `typed` are the options that an entry's own key doesn't overrule."""

    tolerate: float
    detect: float | None
    threads: int | None
    device: str | None
    python: str | None
    base_python: str | None
    base_ref: str | None
    base_hash: str | None
    baselines: Path | None
    typed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Entry:
    """One entry: the parameters that `_ENTRY` made of its table, and which of them stand in it."""

    name: str
    params: dict[str, Any]
    own: frozenset[str]

    @property
    def where(self) -> str:
        """Opens error messages."""
        return f"[compare.{self.name}] of {DEFAULTS}"

    @property
    def combinations(self) -> list[tuple[str, str]]:
        """Targets and precisions of a model; a precision is empty where none was named."""
        from ..exporter.api import listed

        if not self.params["model"]:
            return [("", "")]
        return list(product(listed(self.params["target"]), listed(self.params["precision"]) or ("",)))

    def benchmark(self, target: str, precision: str) -> str:
        """Its name: the entry's, and where that has several what tells them apart."""
        if len(self.combinations) == 1:
            return self.name
        return f"{self.name}/{'-'.join(filter(None, (target, precision)))}"

    @property
    def names(self) -> list[str]:
        """Of all its benchmarks."""
        return [self.benchmark(*each) for each in self.combinations]


def entries(path: Path = Path(DEFAULTS)) -> list[Entry]:
    """The tables below ``[compare]``.

    Raises:
        UsageError: an unknown key or a bad value.
    """
    tables = read_toml(path).get("compare", {}) if path.exists() else {}
    return [entry(name, table) for name, table in tables.items() if isinstance(table, dict)]


def entry(name: str, table: dict[str, Any]) -> Entry:
    """One entry out of its table: keys are options, `seatrial export`'s among them.

    Raises:
        UsageError: an unknown key or a bad value.
    """
    where = f"[compare.{name}] of {DEFAULTS}"
    refuse_unknown(table, _OPTIONS, where)
    words = [word for key, value in table.items() for word in _words(key, value, where)]
    try:
        params = _ENTRY.make_context("compare", words).params
    except click.ClickException as error:
        raise UsageError(where, error.format_message(), "put that value right") from error
    if bool(params["model"]) == bool(params["candidate"]):
        todo = "give `model` (a source, exported here) or `candidate` (a bundle or model file)"
        raise UsageError(where, "it has both" if params["model"] else "there is nothing to measure", todo)
    return Entry(name, params, frozenset(str(_OPTIONS[key].name) for key in table))


def _words(key: str, value: Any, where: str) -> list[str]:
    """A key as words of a command line."""
    if _OPTIONS[key].is_flag:
        if not isinstance(value, bool):
            raise UsageError(where, f"{key} = {value!r}", "write true or false")
        return [f"--{key}"] if value else []
    return [f"--{key}={each}" for each in (value if isinstance(value, list) else [value])]


def only(found: Sequence[Entry], names: Sequence[str]) -> list[str]:
    """The benchmarks to measure: all, or those that are named, each or by their entry.

    Raises:
        UsageError: a name that nothing has.
    """
    known = [name for each in found for name in each.names]
    for name in names:
        if not any(each == name or each.startswith(f"{name}/") for each in known):
            raise UsageError(f"--only {name}", "no benchmark has that name", f"known: {', '.join(known) or 'none'}")
    return [each for each in known if not names or any(each == n or each.startswith(f"{n}/") for n in names)]


@contextmanager
def cases(
    found: Sequence[Entry], wanted: Sequence[str], given: Given, say: Callable[[str], None]
) -> Iterator[list[Case]]:
    """The cases of these entries, with both sides built; what was built goes when the block ends.

    Raises:
        NothingMeasured: there are no entries.
        UsageError: an entry that can't be right.
    """
    from ..exporter.workspace import workspace

    if not found:
        todo = f"give BASE and CANDIDATE, or write [compare.NAME] with a model into {DEFAULTS}"
        raise NothingMeasured("compare", f"there is nothing to compare: no [compare.NAME] in {DEFAULTS}", todo)
    with workspace("compare") as folder, Refs(folder / "refs", _exporter(say), say) as refs:
        made = []
        for index, each in enumerate(found):
            if set(each.names) & set(wanted):
                made += _Builder(each, given, refs, folder / str(index), say).cases(wanted)
        yield made


def _exporter(say: Callable[[str], None]) -> Callable[[dict[str, Any], Path], list[Bundle]]:
    def build(params: dict[str, Any], out: Path) -> list[Bundle]:
        from ..exporter import export

        same = ("target", "precision", "threads", "allow_mismatch", "provider", "require_placement", "create_env")
        options = {name: params[name] for name in same} | ui.source_arguments({**params, "overwrite": False})
        return [one.bundle for one in export(params["model"], output=out, say=say, **options)]

    return build


class _Builder:
    """Both sides of one entry."""

    def __init__(self, entry: Entry, given: Given, refs: Refs, folder: Path, say: Callable[[str], None]) -> None:
        self.entry, self.given, self.refs, self.folder, self.say = entry, given, refs, folder, say
        self.params = entry.params
        self.stop: Decision | None = None

    def pick(self, name: str) -> Any:
        """An option: as typed, else the entry's own, else the command's default."""
        own = name in self.entry.own and name not in self.given.typed
        return self.params[name] if own else getattr(self.given, name)

    def cases(self, wanted: Sequence[str]) -> list[Case]:
        """A case for each combination of target and precision that is wanted."""
        from ..devices.family import Case

        chosen = [each for each in self.entry.combinations if self.entry.benchmark(*each) in wanted]
        origin, base = self._base(chosen)
        margins = {name: self.pick(name) for name in MEASURING}
        blank = Case("", candidate=self.params["candidate"] or self.params["model"], origin=origin, **margins)
        bases = [base(*each) for each in chosen]
        blank = replace(blank, base=origin)
        if all(path is None for path in bases):
            return [replace(blank, name=self.entry.benchmark(*each), decision=self.stop) for each in chosen]
        candidates = self._candidates(chosen)
        made = []
        for each, path in zip(chosen, bases, strict=True):
            case = replace(blank, name=self.entry.benchmark(*each))
            mine = candidates and _of(candidates, *each)
            made.append(
                replace(case, base=path, candidate=mine) if path and mine else replace(case, decision=self.stop)
            )
        return made

    def _base(self, chosen: Sequence[tuple[str, str]]) -> tuple[str, Callable[[str, str], Path | None]]:
        """In words, and by target and precision; where there is none, `stop` says why."""
        ways = [name for name in ("base", "base_ref", "base_hash") if self._says(name)]
        if len(ways) != 1:
            found = f"it has {' and '.join(ways)}" if ways else "no baseline is named"
            raise UsageError(self.entry.where, found.replace("_", "-"), "give one of base, base-ref, base-hash")
        if ways == ["base_ref"]:
            return self._from_ref(self.refs.find(self.pick("base_ref")), chosen)
        if ways == ["base_hash"]:
            return self._from_hash(self.pick("base_hash"), chosen)
        return self._from_path(Path(self.params["base"]))

    def _says(self, name: str) -> bool:
        """Whether a way to the base is given; what was typed, or else an entry's own, overrules what is below."""
        ways = {"base", "base_ref", "base_hash"}
        if ways & self.given.typed:
            return name in self.given.typed
        if ways & self.entry.own:
            return name in self.entry.own and bool(self.params[name])
        return bool(getattr(self.given, name, None))

    def _from_path(self, path: Path) -> tuple[str, Callable[[str, str], Path | None]]:
        several = len(self.entry.combinations) > 1
        self._stop(f"there is no baseline {path}", baseline=False)

        def find(target: str, precision: str) -> Path | None:
            place = path / f"{target}-{precision or 'fp32'}" if several else path
            return place if place.exists() else None

        return str(path), find

    def _from_hash(self, text: str, chosen: Sequence[tuple[str, str]]) -> tuple[str, Callable[[str, str], Path | None]]:
        if len(chosen) > 1:
            raise UsageError(self.entry.where, "one hash for several bundles", "write an entry for each")
        found = by_hash(text, self.given.baselines)
        self._stop(f"no bundle in {self.given.baselines} has the hash {text}", baseline=False)
        return f"{found or text} (by its hash)", lambda *_: found

    def _from_ref(self, ref: Ref, chosen: Sequence[tuple[str, str]]) -> tuple[str, Callable[[str, str], Path | None]]:
        if not self.params["model"]:
            todo = "give `model`: what a ref has is built here; a bundle has no recipe in the repository"
            raise UsageError(self.entry.where, "base-ref with a candidate that is built already", todo)
        file = model_path(self.params["model"])
        if not ref.has(file):
            self._stop(f"there is no {file} at {ref}", baseline=False)
            return str(ref), lambda *_: None
        bundles: list[Bundle] = []
        try:
            bundles = self.refs.bundles(ref, self._asked(chosen))
        except Interrupted:
            raise
        except SeatrialError as error:
            self._stop(f"the baseline can't be built at {ref}: {error.one_line}")
        return str(ref), lambda *each: _of(bundles, *each)

    def _candidates(self, chosen: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Path] | list[Bundle] | None:
        """The candidates; None where they can't be built, which `stop` then says."""
        if self.params["candidate"]:
            return {("", ""): Path(self.params["candidate"])}
        self.say(f"building the candidate {self.entry.name}")
        try:
            return self.refs.build(self._asked(chosen), self.folder)
        except (UsageError, Interrupted):
            raise
        except SeatrialError as error:
            self._stop(f"the candidate can't be built: {error.one_line}")
            return None

    def _asked(self, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The parameters of an export of what is wanted only."""
        targets, precisions = (tuple(dict.fromkeys(column)) for column in zip(*chosen, strict=True))
        return {**self.params, "target": targets, "precision": tuple(filter(None, precisions))}

    def _stop(self, reason: str, baseline: bool = True) -> None:
        from ..devices.gate import without_comparison

        self.stop = without_comparison(reason, baseline=baseline)


def _of(made: dict[tuple[str, str], Path] | list[Bundle], target: str, precision: str) -> Path | None:
    """The one for this target and precision."""
    if isinstance(made, dict):
        return made.get((target, precision))
    fits = (b.path for b in made if b.target == target and precision in ("", b.precision))
    return next(fits, None)


def named(model: str) -> str:
    """What a benchmark of this model is called: as its bundles are."""
    from ..exporter.api import source_of

    return source_of(model).folder_name
