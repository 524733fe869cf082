"""The objectives that were added to a study, as rows for its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .choose import label

if TYPE_CHECKING:
    from .objectives import Estimate
    from .study import Study


def rows_of(study: Study) -> list[dict[str, Any]]:
    """Each added objective: who is best by it, with which value, and the winner of the search beside it.

    Values and the difference between the two, over the same examples, are ``value``, ``low`` and ``high``; None where
    they aren't known.

    Raises:
        UsageError: what an objective is computed from is gone.
    """
    winner, rows = study.winners.get("best"), []
    for objective, best, value in study.standings():
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
