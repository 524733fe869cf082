"""The objectives that were added to a study, as rows for its report, and the report with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import SeatrialError
from .choose import label
from .report import render

if TYPE_CHECKING:
    from .objectives import Estimate
    from .study import Study


def page_of(study: Study) -> str:
    """The report at the end of a search; what an added objective lacks by now doesn't cost the search its report."""
    try:
        return render(study.document, rows_of(study))
    except SeatrialError as error:
        note = f"the objectives that were added are not shown: {error.one_line}"
        return render({**study.document, "notes": [*study.document["notes"], note]})


def rows_of(study: Study) -> list[dict[str, Any]]:
    """Each added objective: who is best by it, with which value, and the winner of the search beside it.

    Those that the study file describes were not added: they are among what is shown of each deployment.

    Values and the difference between the two, over the same examples, are ``value``, ``low`` and ``high``; None where
    they aren't known.

    Raises:
        UsageError: what an objective is computed from is gone.
    """
    winner, rows = study.winners.get("best"), []
    described = study.document.get("goals", {}).get("described", ())
    for objective, best, value in study.standings():
        if objective.name in described:
            continue
        old = study.estimates(objective.name).get(winner or "")
        same = best is not None and best["id"] == winner
        paired = None
        if best and old and not same:
            paired = study.difference(objective.name, best["id"], str(winner))
        rows.append(
            {
                "name": objective.name,
                "text": objective.text,
                "direction": objective.direction,
                "best": label(best) if best else None,
                "id": best["id"] if best else None,
                "value": _plain(value),
                "old": _plain(old),
                "same": same,
                "difference": _plain(paired),
            }
        )
    return rows


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return {"value": found.value, "low": found.low, "high": found.high} if found else None
