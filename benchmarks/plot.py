"""Cost against size as an SVG: panels with logarithmic axes, a line for each cost, its name at the line's end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

Line = Mapping[int, float]
"""What it costs at each size."""

COLORS = ("#0b63ce", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 330, 62, 128, 44, 44
"""Of a panel, in pixels, and its margins: the names stand on the right."""
STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:14px}.g{stroke:#ddd}.l{fill:none;stroke-width:2}"
)


class Panel(NamedTuple):
    title: str
    across: str
    unit: str
    lines: Mapping[str, Line]


def svg(panels: Sequence[Panel]) -> str:
    """The panels, two in a row."""
    rows = ceil(len(panels) / 2)
    drawn = "".join(
        f'<g transform="translate({number % 2 * WIDTH},{number // 2 * HEIGHT})">{"".join(_panel(panel))}</g>\n'
        for number, panel in enumerate(panels)
    )
    size = f'width="{2 * WIDTH}" height="{rows * HEIGHT}" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{drawn}</svg>\n'
    )


def _panel(panel: Panel) -> Iterable[str]:
    points = [point for line in panel.lines.values() for point in line.items() if point[1] > 0]
    xs, ys = _decades(x for x, _ in points), _decades(y for _, y in points)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x_of(value: float) -> float:
        return round(LEFT + (log10(value) - xs[0]) / (xs[-1] - xs[0]) * (right - LEFT), 1)

    def y_of(value: float) -> float:
        return round(bottom - (log10(value) - ys[0]) / (ys[-1] - ys[0]) * (bottom - TOP), 1)

    yield f'<text class="t" x="{LEFT}" y="24">{escape(panel.title)}</text>'
    for power in xs:
        x = x_of(10**power)
        yield f'<path class="g" d="M{x} {TOP}V{bottom}"/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{10**power:,}</text>'
    for power in ys:
        y = y_of(10.0**power)
        yield f'<path class="g" d="M{LEFT} {y}H{right}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{_short(10.0**power)}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(panel.across)}</text>'
    yield f'<text x="{LEFT - 6}" y="{TOP - 8}" text-anchor="end">{escape(panel.unit)}</text>'
    ends = sorted((y_of(max(_last(line), 10.0 ** ys[0])), name) for name, line in panel.lines.items())
    places = dict(zip((name for _, name in ends), _apart([y for y, _ in ends], bottom), strict=True))
    for color, (name, line) in zip(COLORS, panel.lines.items(), strict=False):
        path = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in sorted(line.items()) if y > 0)
        yield f'<polyline class="l" stroke="{color}" points="{path}"/>'
        yield "".join(
            f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="{color}"/>' for p in path.split()
        )
        yield f'<text x="{right + 8}" y="{places[name] + 4}" style="fill:{color}">{escape(name)}</text>\n'


def _last(line: Line) -> float:
    return line[max(line)]


def _decades(values: Iterable[float]) -> range:
    """The powers of ten that hold all of them, at least two."""
    found = sorted(values)
    low, high = floor(log10(found[0])), ceil(log10(found[-1]))
    return range(low, max(high, low + 1) + 1)


def _apart(places: Sequence[float], bottom: float) -> list[float]:
    """The same places, in order, moved so that two lines of text do not overlap."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + 14) if moved else place)
    over = max(0.0, moved[-1] - bottom) if moved else 0.0
    return [place - over for place in moved]


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
