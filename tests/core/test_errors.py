"""Errors: they cross a process boundary as themselves, and each class has the exit code that the docs promise."""

from __future__ import annotations

import pytest
from seatrial.core import errors


def test_every_class_has_its_documented_exit_code():
    documented = {
        "SeatrialError": 5,
        "UsageError": 2,
        "CheckFailed": 1,
        "NothingMeasured": 4,
        "Interrupted": 130,
        "CannotDo": 5,
        "MissingPart": 5,
        "Unsupported": 5,
        "ConverterFailed": 5,
        "ChildFailed": 5,
        "NotWritten": 5,
    }
    ours = {name: cls.exit_code for name, cls in errors._classes().items() if cls.__module__ == errors.__name__}
    assert ours == documented


@pytest.mark.parametrize("cls", [errors.UsageError, errors.CheckFailed, errors.NotWritten, errors.MissingPart])
def test_an_error_survives_the_way_through_json(cls: type[errors.SeatrialError]):
    error = cls("what", "why", "do this", "/log")
    again = errors.from_dict(error.to_dict())
    assert type(again) is cls
    assert str(again) == str(error)


def test_a_failed_childs_kind_survives():
    again = errors.from_dict(errors.ChildFailed("a", "b", "c", "d", kind="oom").to_dict())
    assert isinstance(again, errors.ChildFailed)
    assert (again.kind, again.exit_code) == ("oom", 5)


def test_the_text_says_what_was_asked_found_and_to_do():
    text = str(errors.UsageError("the model x", "no such file", "look again", "/log"))
    assert text == "the model x\n  found: no such file\n  to do: look again\n  log:   /log"
    assert "to do" not in str(errors.UsageError("the model x", "no such file"))
