"""Converters that run in the process that captured the model: they find its library imported."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from ...core.errors import ChildFailed, SeatrialError
from ..convert import look
from .job import SKIPPED, Job


def run(job: Job, kind: str) -> list[Any]:
    """Run the converters of `job.then` that read this format: for each None, its error as data, or `SKIPPED`."""
    done: dict[str, Any] = {}
    for step in job.then:
        if step["source"] == kind and (not step["after"] or done.get(step["after"]) is not None):
            done[step["label"]] = _run(step)
    return [done.get(step["label"], SKIPPED) for step in job.then]


def _run(step: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        look.convert(step["function"], step["label"], **step["args"])
    except SeatrialError as error:
        traceback.print_exc()
        return error.to_dict()
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {str(error).strip()[:2000]}"
        return ChildFailed(step["label"], found, "the last lines of the log tell more").to_dict()
    return None
