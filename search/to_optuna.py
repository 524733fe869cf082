"""A study in an Optuna storage, one Optuna study for each target and device: for Optuna's dashboard and plots."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingPart, NotWritten, UsageError
from .candidate import place_of
from .choose import Bound
from .objectives import BUILT_IN
from .to_csv import plain, table_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from .study import Study

Row = Mapping[str, Any]
Say = Callable[[str], None]
EACH = 100
"""Trials between two lines of progress."""


def write_optuna(
    study: Study, url: str, name: str | None = None, overwrite: bool = False, say: Say = lambda text: None
) -> dict[str, int]:
    """Write a study's candidates as trials; see `docs/report.md` for what becomes what.

    Args:
        study: of one model or of many.
        url: of the storage, as SQLAlchemy has it: ``sqlite:///study.db``.
        name: the Optuna studies are ``NAME-TARGET`` or ``NAME-TARGET@DEVICE``; by default the title.
        overwrite: replace studies of these names.
        say: takes a line now and then: Optuna's storage takes some 20 ms for a trial.

    Returns:
        Name of each Optuna study → how many trials it has.

    Raises:
        UsageError: the URL is of no database, or there is a study of such a name.
        MissingPart: Optuna or the database's driver isn't installed.
        NotWritten: the database can't be opened or written.
    """
    with _clear_errors(url):
        import optuna
        from optuna.study import StudyDirection

        goals = _goals(study)
        bounds = [Bound.read(text) for text in study.document.get("goals", {}).get("constraints", [])]
        rows = table_of(study)
        order = {key: place for place, key in enumerate(study.document.get("models", {}))}
        rows.sort(key=lambda row: order.get(row.get("model"), 0))  # as they were tried, for plots of a history
        places = dict.fromkeys(place_of(row) for row in rows if row.get("target"))
        names = {place: f"{name or study.document['title']}-{place}" for place in places}
        storage = _storage(url)
        there = [each.study_name for each in optuna.get_all_study_summaries(storage)]
        taken = [each for each in names.values() if each in there]
        if taken and not overwrite:
            raise UsageError(f"--optuna {_shown(url)}", f"it has a study {taken[0]}", "add --overwrite, or a --name")
        for each in taken:
            optuna.delete_study(study_name=each, storage=storage)
        found = {}
        for place, own in names.items():
            ways = [StudyDirection.MINIMIZE if way == "min" else StudyDirection.MAXIMIZE for way in goals.values()]
            made = optuna.create_study(storage=storage, study_name=own, directions=ways)
            made.set_metric_names(list(goals))
            made.set_user_attr("seatrial", {"title": study.document["title"], "command": study.document["command"]})
            trials = _trials([row for row in rows if not row.get("target") or place_of(row) == place], goals, bounds)
            for done, trial in enumerate(trials):
                if done % EACH == 0:
                    say(f"{own}: trial {done + 1} of {len(trials)}")
                made.add_trial(trial)
            found[own] = len(trials)
        return found


def _storage(url: str) -> RDBStorage:
    import optuna
    import sqlalchemy as sa

    storage = optuna.storages.RDBStorage(url)
    if storage.engine.dialect.name == "sqlite":
        # Each trial is a transaction; one that a power cut takes is exported again.
        storage.engine.dispose()
        sa.event.listen(storage.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    return storage


def _goals(study: Study) -> dict[str, str]:
    """Objectives with their directions; of one model latency, and what stands for quality."""
    if "goals" in study.document:
        return {each["name"]: each["direction"] for each in study.document["goals"]["objectives"]}
    known = [name for name in ("accuracy", "agreement", "sqnr_db") if any(c.get(name) for c in study.candidates)]
    return {name: BUILT_IN[name].direction for name in ("latency_ms", *known[:1])}


def _trials(rows: Sequence[Row], goals: Mapping[str, str], bounds: Sequence[Bound]) -> list[FrozenTrial]:
    kinds = _distributions(rows)
    return [_trial(row, kinds, goals, bounds) for row in rows]


def _trial(
    row: Row, kinds: Mapping[str, BaseDistribution], goals: Mapping[str, str], bounds: Sequence[Bound]
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    values = [float(row[name]) for name in goals if _number(row.get(name))]
    whole = row["status"] != "failed" and len(values) == len(goals)
    params = {name: row[column] for name in kinds if (column := _column(row, name)) is not None}
    known = {name: value for name, value in row.items() if value is not None and _column(row, name) is None}
    return create_trial(
        state=TrialState.COMPLETE if whole else TrialState.FAIL,
        values=values if whole else None,
        params=params,
        distributions={name: kinds[name] for name in params},
        user_attrs={name: value for name, value in known.items() if name not in goals},
        constraints=_constraints(row, bounds) if whole else None,
    )


def _column(row: Row, name: str) -> str | None:
    """Where a row has the value of a parameter."""
    return next((c for c in (f"model.{name}", f"settings.{name}") if row.get(c) is not None), None) or (
        name if name == "precision" and row.get(name) is not None else None
    )


def _distributions(rows: Sequence[Row]) -> dict[str, BaseDistribution]:
    """Of the model's values and the precision, and of the settings that aren't the same in all rows."""
    seen: dict[str, list[Any]] = {}
    for row in rows:
        for column, value in row.items():
            if value is not None and (column.startswith(("model.", "settings.")) or column == "precision"):
                seen.setdefault(column, []).append(value)
    found = {}
    for column, values in seen.items():
        name = column.partition(".")[2] or column
        if not column.startswith("settings.") or (len(set(values)) > 1 and name not in found):
            found[name] = _distribution(values)
    return found


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return IntDistribution(min(values), max(values))
    if all(_number(value) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(sorted(set(map(plain, values)), key=str))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _constraints(row: Row, bounds: Sequence[Bound]) -> dict[str, float]:
    """Above 0 where a bound is missed, or where a check said no."""
    found = {"proven": 0.0 if row["status"] == "ok" else 1.0}
    for bound in bounds:
        value = row.get(bound.name)
        over = math.inf if value is None else (value - bound.limit) * (1 if bound.sign.startswith("<") else -1)
        found[str(bound)] = over if math.isfinite(over) else 1.0
    return found


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    import sqlalchemy as sa

    asked = f"--optuna {_shown(url)}"
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingPart(asked, str(error), "pip install optuna") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that names of metrics are experimental
            yield
    except (sa.exc.NoSuchModuleError, sa.exc.ArgumentError) as error:
        raise UsageError(asked, str(error).partition("\n")[0], "give a URL such as sqlite:///study.db") from error
    except ImportError as error:
        raise MissingPart(asked, str(error).partition("\n")[0], "install the database's driver") from error
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        found = str(getattr(cause, "orig", None) or cause).partition("\n")[0]
        raise NotWritten(asked, found, "check the URL, the path in it and its rights") from error
    finally:
        optuna.logging.set_verbosity(before)


def _shown(url: str) -> str:
    """Without its password."""
    import sqlalchemy as sa

    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url
