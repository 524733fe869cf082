"""A picture of the report, with what its marks mean: for the page and for a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SIZES = ((1100, 420), (400, 400))


@dataclass(frozen=True)
class Key:
    """One mark and what it means.

    Attributes:
        kind: ``dot`` of a colour, ``glyph`` of a precision, ``ringed``, ``stroke``, ``dash``, ``hollow`` or ``faded``.
        text: the meaning.
        colour: an index of the page's palette.
        precision: of a glyph.
    """

    kind: str
    text: str
    colour: int = 0
    precision: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        title: its heading.
        draw: gives the ``<svg>`` for a width and a height.
        keys: what its marks mean.
        caption: what else is to be known.
        sizes: width and height on a wide and on a narrow screen: one that shrank would have no legible word.
    """

    title: str
    draw: Callable[[int, int], str]
    keys: Sequence[Key] = ()
    caption: str = ""
    sizes: tuple[tuple[int, int], tuple[int, int]] = SIZES
