"""The report's pictures as PNG files: a painter of the few SVG elements and style rules that they are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from . import report_plot
from .report_figure import Figure, Key

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

SCALE, FINE = 2, 2
"""Pixels of the file for each unit of the picture, and of the canvas for each of those."""
FONTS = {
    False: ("DejaVuSans.ttf", "LiberationSans-Regular.ttf"),
    True: ("DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"),
}
LINE, WIDEST = 20, 150
"""Height of a line above or below the picture, and its letters at most."""
_INHERITED = {"fill", "stroke", "--c", "font-size", "font-weight"}
Point = tuple[float, float]


def save(figure: Figure, path: Path) -> None:
    """Write a picture with its title and legend, 2 pixels for each of its units, in the page's light colours.

    Raises:
        OSError: the file can't be written.
    """
    paint(figure).save(path, "PNG", optimize=True)


def paint(figure: Figure) -> Image:
    """The picture."""
    from PIL import Image

    width, height = figure.sizes[0]
    style = Style()
    words = wrap(figure.caption, WIDEST)
    head, top = _head(figure, width)
    total = top + height + LINE * len(words)
    canvas = Canvas(style, width, total)
    for part in (head, _caption(words, top + height)):
        canvas.draw(ElementTree.fromstring(f"<svg>{part}</svg>"), (0.0, 0.0))
    canvas.draw(ElementTree.fromstring(figure.draw(width, height)), (0.0, float(top)))
    return canvas.image.resize((width * SCALE, total * SCALE), Image.Resampling.LANCZOS)


def _head(figure: Figure, width: int) -> tuple[str, int]:
    """Title and legend, and how high they are."""
    parts, x, y = [f'<text class="title" x="16" y="28">{escape(figure.title)}</text>'], 16.0, 54.0
    for key in figure.keys:
        wide = 44 + 7.2 * len(key.text)
        if x > 16 and x + wide > width:
            x, y = 16.0, y + LINE
        parts.append(_sign(key, x + 9, y))
        parts.append(f'<text class="axis" x="{x + 24:.0f}" y="{y + 4:.0f}">{escape(key.text)}</text>')
        x += wide
    return "".join(parts), round(y) + LINE


def _caption(lines: Sequence[str], y: int) -> str:
    return "".join(
        f'<text class="axis" x="16" y="{y + 12 + LINE * k}">{escape(line)}</text>' for k, line in enumerate(lines)
    )


def _sign(key: Key, x: float, y: float) -> str:
    """What stands before the words of a legend."""
    if key.kind == "glyph":
        shape = report_plot.marker(report_plot.shape_of(key.precision), x, y, 5.5, 'class="mark"')
        return f'<g class="glyph">{shape}</g>'
    if key.kind.startswith(("stroke", "dash")):
        kind = "bound" if key.kind == "dash" else "front wide" if "thick" in key.kind else "front"
        return f'<path class="{kind}" d="M{x - 10},{y}H{x + 10}"/>'
    colour = f"key {key.kind} t{key.colour}"
    return f'<circle class="{colour}" cx="{x}" cy="{y}" r="{7 if key.kind == "ringed" else 5.5}"/>'


class Style:
    """The page's own rules: those of classes and tags, in its light colours."""

    def __init__(self) -> None:
        html = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
        css = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
        text = _without_media(css.group(1) if css else "")
        self.rules: list[tuple[tuple[int, int], list[set[str]], dict[str, str]]] = []
        for order, (heads, body) in enumerate(re.findall(r"([^{}]+)\{([^{}]*)\}", text + EXTRA)):
            facts = {k.strip(): v.strip() for k, _, v in (part.partition(":") for part in body.split(";")) if v}
            for head in heads.split(","):
                if ":root" in head:
                    self.colours = facts
                elif not re.search(r"[:>\[+*#]", head):
                    parts = [set(re.findall(r"\.?[\w-]+", part)) for part in head.split()]
                    self.rules.append(((sum(len(part) for part in parts), order), parts, facts))
        self.rules.sort(key=lambda rule: rule[0])

    def of(self, chain: Sequence[set[str]], above: Mapping[str, str]) -> dict[str, str]:
        """What holds for the last of a chain of elements, each given by its tag and its classes."""
        found = {name: value for name, value in above.items() if name in _INHERITED}
        for _, parts, facts in self.rules:
            if parts[-1] <= chain[-1] and _behind(parts[:-1], chain[:-1]):
                found |= facts
        if "font" in found:
            size = re.search(r"([\d.]+)px", found["font"])
            found = {"font-size": size.group(1) if size else "12.5", **found}
        return found

    def colour(self, value: str, found: Mapping[str, str], opacity: float) -> tuple[int, int, int, int] | None:
        """Of a value such as ``var(--c)``; None where nothing is painted."""
        from PIL import ImageColor

        for _ in range(4):
            named = re.fullmatch(r"var\((--\w+)(?:,\s*(.*))?\)", value)
            if not named:
                break
            value = found.get(named[1]) or self.colours.get(named[1]) or named[2] or "none"
        if value == "none":
            return None
        red, green, blue = ImageColor.getrgb(value)[:3]
        return red, green, blue, round(255 * opacity)


EXTRA = """
svg .title { font-size: 17px; font-weight: 650; fill: var(--ink); }
svg .key { fill: var(--c); } svg .ringed { fill: none; stroke: var(--ink); stroke-width: 2; }
svg .tied, svg .hollow { fill: none; stroke: var(--soft); stroke-width: 2; }
svg .faded { fill: var(--faint); opacity: .4; } svg .wide { stroke-width: 4; opacity: 1; }
"""


def _without_media(css: str) -> str:
    kept, depth, skip = [], 0, 0
    for part in re.split(r"(@media[^{]*\{|\{|\})", css):
        if part.startswith("@media"):
            skip = depth + 1
        depth += part.endswith("{") - (part == "}")
        if not skip:
            kept.append(part)
        elif depth < skip:
            skip = 0
    return "".join(kept)


def _behind(parts: Sequence[set[str]], chain: Sequence[set[str]]) -> bool:
    """Whether the parts of a selector are found among the ancestors, in this order."""
    left = iter(chain)
    return all(any(part <= each for each in left) for part in parts)


class Canvas:
    """Paints elements, larger than they will be."""

    def __init__(self, style: Style, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.style, self.unit = style, float(SCALE * FINE)
        self.image = Image.new("RGB", (round(width * self.unit), round(height * self.unit)), style.colours["--panel"])
        self.pen = ImageDraw.Draw(self.image, "RGBA")
        self.shift: Point = (0.0, 0.0)

    def draw(self, root: ElementTree.Element, shift: Point) -> None:
        """An element and all that is in it, moved by `shift`."""
        self.shift = shift
        self._element(root, [], {})

    def _element(self, element: ElementTree.Element, chain: list[set[str]], above: Mapping[str, str]) -> None:
        classes = {f".{name}" for name in element.get("class", "").split()}
        chain = [*chain, {element.tag, *classes}]
        found = self.style.of(chain, above)
        found["opacity"] = str(float(found.get("opacity", 1)) * float(above.get("opacity", 1)))
        paint = getattr(self, f"_{element.tag}", None)
        if element.tag in ("svg", "a", "g"):
            for child in element:
                self._element(child, chain, found)
        elif paint:
            paint(element, found)

    def _at(self, x: float, y: float) -> Point:
        return (x + self.shift[0]) * self.unit, (y + self.shift[1]) * self.unit

    def _colours(self, found: Mapping[str, str]) -> tuple[Any, Any, float]:
        """Fill, stroke and the stroke's width in pixels of the canvas."""
        opacity = float(found["opacity"])
        inside = self.style.colour(found.get("fill", "#000"), found, opacity * float(found.get("fill-opacity", 1)))
        line = self.style.colour(found.get("stroke", "none"), found, opacity)
        return inside, line, float(found.get("stroke-width", "1").removesuffix("px")) * self.unit

    def _line(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        ends = [self._at(_number(element, f"x{k}"), _number(element, f"y{k}")) for k in (1, 2)]
        self._stroke([ends], found)

    def _path(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        self._stroke([[self._at(*point) for point in line] for line in lines_of(element.get("d", ""))], found)

    def _stroke(self, lines: Sequence[Sequence[Point]], found: Mapping[str, str]) -> None:
        _, colour, width = self._colours(found)
        if colour is None:
            return
        dash = [float(x) * self.unit for x in found.get("stroke-dasharray", "").split()]
        for line in lines:
            if all(point == line[0] for point in line):  # without length: its round end alone
                self.pen.ellipse(_round(line[0], width / 2), fill=colour)
            else:
                for piece in _dashed(line, dash) if dash else [line]:
                    self.pen.line(list(piece), fill=colour, width=max(1, round(width)), joint="curve")

    def _rect(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        x, y = _number(element, "x"), _number(element, "y")
        corner = self._at(x + _number(element, "width"), y + _number(element, "height"))
        inside, _, _ = self._colours(found)
        self.pen.rectangle((*self._at(x, y), *corner), fill=inside)

    def _circle(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        inside, line, width = self._colours(found)
        centre, radius = self._at(_number(element, "cx"), _number(element, "cy")), _number(element, "r") * self.unit
        if inside:
            self.pen.ellipse(_round(centre, radius), fill=inside)
        if line:
            self.pen.ellipse(_round(centre, radius + width / 2), outline=line, width=max(1, round(width)))

    def _polygon(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        inside, line, width = self._colours(found)
        pairs = (pair.split(",") for pair in element.get("points", "").split())
        points = [self._at(float(x), float(y)) for x, y in pairs]
        if inside:
            self.pen.polygon(points, fill=inside)
        if line:
            self.pen.line([*points, points[0], points[1]], fill=line, width=max(1, round(width)), joint="curve")

    def _text(self, element: ElementTree.Element, found: Mapping[str, str]) -> None:
        inside, line, width = self._colours(found)
        font = _font(float(found.get("font-size", "12.5").removesuffix("px")) * self.unit, _bold(found))
        anchor = {"middle": "ms", "end": "rs"}.get(element.get("text-anchor", ""), "ls")
        halo = {"stroke_width": round(width / 2), "stroke_fill": line} if line else {}
        words = (element.text or "").replace("\N{NO-BREAK SPACE}", " ")
        turned = re.match(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(-90\)", element.get("transform", ""))
        if turned:
            self._upwards(words, self._at(float(turned[1]), float(turned[2])), font, inside)
            return
        self.pen.text(self._at(_number(element, "x"), _number(element, "y")), words, inside, font, anchor, **halo)

    def _upwards(self, words: str, at: Point, font: FreeTypeFont, colour: Any) -> None:
        from PIL import Image, ImageDraw

        left, top, right, bottom = (round(x) for x in font.getbbox(words, anchor="ls"))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).text((-left, -top), words, 255, font, "ls")
        mask = mask.transpose(Image.Transpose.ROTATE_90)
        self.image.paste(colour[:3], (round(at[0] + top), round(at[1] - mask.height / 2)), mask)


def lines_of(path: str) -> Iterator[list[Point]]:
    """The lines of a path of the commands M, L, H, V, and m, l, h, v, which go on from where they are."""
    line: list[Point] = []
    x = y = 0.0
    for command, text in re.findall(r"([MLHVmlhv])([-\d.,\s]*)", path):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        base_x, base_y = (x, y) if command.islower() else (0.0, 0.0)
        if command in "Hh":
            x = base_x + numbers[0]
        elif command in "Vv":
            y = base_y + numbers[0]
        else:
            x, y = base_x + numbers[0], base_y + numbers[1]
        if command in "Mm" and line:
            yield line
            line = []
        line.append((x, y))
    if line:
        yield line


def _dashed(line: Sequence[Point], dash: Sequence[float]) -> Iterator[list[Point]]:
    """The pieces of straight lines that are drawn."""
    on, off = [*dash, *dash][:2]
    for start, end in pairwise(line):
        far = math.dist(start, end)
        for k in range(math.ceil(far / (on + off))):
            a, b = k * (on + off) / far, min((k * (on + off) + on) / far, 1.0)
            yield [(start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])) for t in (a, b)]


def _round(centre: Point, radius: float) -> tuple[float, float, float, float]:
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius


def _number(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "0"))


def _bold(found: Mapping[str, str]) -> bool:
    return found.get("font-weight", "400").isdigit() and int(found.get("font-weight", "400")) >= 600


def _font(size: float, bold: bool) -> FreeTypeFont:
    from PIL import ImageFont

    for name in FONTS[bold]:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)  # type: ignore[return-value]
