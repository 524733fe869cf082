"""What a user's text becomes on the screen: itself, also where it has brackets or colons."""

from __future__ import annotations

import re

import pytest
from seatrial.cli import ui

TEXTS = ("float32[batch, 3, 224, 224]", "in [/data/x]", "[red]no colour[/]", "a:m:b")


def test_a_table_prints_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    ui.table(("what", ">[bold]how"), [[text, "1"] for text in TEXTS])
    head, *rows = capsys.readouterr().out.splitlines()
    assert "[bold]how" in head
    assert [row.rpartition("1")[0].strip() for row in rows] == list(TEXTS)


def test_so_does_the_running_step_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ui.progress() as say:
        for text in TEXTS:
            say(text)
            assert text in re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
