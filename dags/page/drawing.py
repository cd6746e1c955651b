"""Charts as SVG, drawn on the server: nothing to load, and colours by CSS, so that they follow light and dark.

Every text goes through `Markup.format`, which escapes it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta

from markupsafe import Markup

from dags.page.flows import REST, Flows

WIDTH = 1000
COLOURS = 8  # classes c0 to c7 of static/page.css


def nice(top: float) -> float:
    """Return a round number that is not smaller.

    >>> nice(0.37), nice(42), nice(7110)
    (0.4, 50.0, 8000.0)
    """
    if top <= 0:
        return 1.0
    unit = 10.0 ** (len(str(int(top))) - 1) if top >= 1 else 0.1
    return next(unit * step for step in (1, 2, 3, 4, 5, 6, 8, 10) if unit * step >= top)


def number(value: float) -> str:
    """Show an amount in few characters.

    >>> number(1234567), number(42), number(0.25), number(3.04)
    ('1,234,567', '42', '0.25', '3.0')
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"


def stacked(days: Sequence[date], series: Mapping[str, Mapping[date, float]], height: int = 150) -> Markup:
    """Draw a bar for each day, the series on top of each other, and a legend with the sums."""
    totals = [sum(values.get(day, 0) for values in series.values()) for day in days]
    top = nice(max(totals, default=0))
    step = WIDTH / max(1, len(days))
    base = dict.fromkeys(days, 0.0)
    paths = []
    for i, values in enumerate(series.values()):
        bars = []
        for n, day in enumerate(days):
            value = values.get(day, 0)
            if value:
                low, high = (height * (1 - v / top) for v in (base[day], base[day] + value))
                bars.append(f"M{n * step:.1f} {low:.1f}V{high:.1f}h{max(0.6, step * 0.85):.2f}V{low:.1f}z")
                base[day] += value
        paths.append(Markup('<path class="f c{}" d="{}"/>').format(i % COLOURS, "".join(bars)))
    return _framed(Markup("").join(paths), height, top, days) + legend(
        {name: number(sum(values.get(day, 0) for day in days)) for name, values in series.items()}
    )


def lines(
    days: Sequence[date], series: Mapping[str, Mapping[date, float]], height: int = 180, top: float | None = None
) -> Markup:
    """Draw a line through the days of each series, and a legend with the newest values."""
    top = top or nice(max((value for values in series.values() for value in values.values()), default=0))
    first, span = days[0], max(1, (days[-1] - days[0]).days)
    shapes = []
    for i, (name, values) in enumerate(series.items()):
        points = [
            (10 + (WIDTH - 20) * (day - first).days / span, height * (1 - value / top), day, value)
            for day, value in sorted(values.items())
        ]
        shapes.append(
            Markup('<polyline class="l c{}" points="{}"/>').format(
                i % COLOURS, " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
            )
        )
        # A dot can be pointed at; hundreds of them only hide the line.
        for x, y, day, value in points if len(points) <= 60 else ():
            shapes.append(
                Markup('<circle class="f c{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}, {}: {}</title></circle>').format(
                    i % COLOURS, x, y, name, day, number(value)
                )
            )
    newest = {name: number(values[max(values)]) if values else "-" for name, values in series.items()}
    return _framed(Markup("").join(shapes), height, top, days) + legend(newest)


def legend(entries: Mapping[str, str]) -> Markup:
    """Name the colours, each with a number."""
    items = Markup("").join(
        Markup('<li><i class="b c{}"></i>{} <b>{}</b></li>').format(i % COLOURS, name, value)
        for i, (name, value) in enumerate(entries.items())
    )
    return Markup('<ul class="legend">{}</ul>').format(items)


def greatest(flows: Iterable[Flows], most: int = COLOURS) -> list[str]:
    """Return the categories with the most users coming and going in all of some flows, the greatest first."""
    sizes: dict[str, float] = defaultdict(float)
    for side in (side for some in flows for side in (some.now, some.then)):
        for name, users in side.items():
            sizes[name] += users
    return [name for name in sorted(sizes, key=lambda name: (-sizes[name], name)) if name != REST][:most]


def sankey(flows: Flows, kept: Sequence[str], left: str, right: str, height: int = 420) -> Markup:
    """Draw flows as ribbons from their source to their target; all categories but `kept` are one."""
    order = {name: i for i, name in enumerate([*kept, REST])}
    colour = {name: f"c{i % COLOURS}" for i, name in enumerate(kept)} | {REST: "rest"}
    merged = flows.among(kept)
    total = sum(merged.values())
    if not total:
        return Markup("<p>No user on this day.</p>")
    sides = [{name: sum(n for pair, n in merged.items() if pair[at] == name) for name in order} for at in (0, 1)]
    sides = [{name: users for name, users in side.items() if users} for side in sides]
    # The side with more categories has more gaps, and decides how high a user is.
    gap = 10
    scale = (height - gap * (max(map(len, sides)) - 1)) / total
    tops: list[dict[str, float]] = [{}, {}]
    for side, top in zip(sides, tops, strict=True):
        y = 0.0
        for name, users in side.items():
            top[name] = y
            y += users * scale + gap
    x1, x2, thick = 250, WIDTH - 250, 10
    shapes = []
    free = [dict(top) for top in tops]
    for source, target in sorted(merged, key=lambda pair: (order[pair[0]], order[pair[1]])):
        users = merged[source, target]
        a, b = free[0][source], free[1][target]
        free[0][source] += users * scale
        free[1][target] += users * scale
        shapes.append(_ribbon(colour[source], (x1, a), (x2, b), users * scale, f"{source} → {target}: {number(users)}"))
    for side, top, x, text_x, anchor in (
        (sides[0], tops[0], x1 - thick, x1 - thick - 8, "end"),
        (sides[1], tops[1], x2, x2 + thick + 8, "start"),
    ):
        for name, users in side.items():
            high = users * scale
            shapes.append(
                Markup(
                    '<rect class="f {}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>'
                    '<text x="{}" y="{:.1f}" text-anchor="{}">{} <tspan class="n">{}</tspan></text>'
                ).format(
                    *(colour[name], x, top[name], thick, max(1, high)),
                    *(text_x, top[name] + high / 2 + 4, anchor, _short(name), number(users)),
                )
            )
    return Markup(
        '<svg class="sankey" viewBox="0 -24 {} {}" role="img" aria-label="{} to {}">'
        '<text class="h" x="{}" y="-8" text-anchor="end">{}</text><text class="h" x="{}" y="-8">{}</text>{}</svg>'
    ).format(WIDTH, height + 30, left, right, x1, left, x2, right, Markup("").join(shapes))


def _ribbon(colour: str, start: tuple[float, float], end: tuple[float, float], thick: float, words: str) -> Markup:
    """Draw a band from one point to another, both the upper ends of its edges."""
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    there = f"M{x1} {y1:.1f}C{middle} {y1:.1f} {middle} {y2:.1f} {x2} {y2:.1f}V{y2 + thick:.1f}"
    back = f"C{middle} {y2 + thick:.1f} {middle} {y1 + thick:.1f} {x1} {y1 + thick:.1f}z"
    return Markup('<path class="r {}" d="{}{}"><title>{}</title></path>').format(colour, there, back, words)


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _framed(shapes: Markup, height: int, top: float, days: Sequence[date]) -> Markup:
    """Put a frame with the highest value and the first of each month (or each day of few) around shapes."""
    if not days:
        return Markup("<p>Nothing yet.</p>")
    first, last = days[0], days[-1]
    span = max(1, (last - first).days)
    if span > 45:
        ticks = [day for day in (first + timedelta(days=n) for n in range(span + 1)) if day.day == 1]
        ticks = ticks[:: max(1, len(ticks) // 12)]
    else:
        ticks = sorted({first, last, first + timedelta(days=span // 2)})
    marks = Markup("").join(
        Markup('<text class="t" x="{:.0f}" y="{}" text-anchor="middle">{}</text>').format(
            min(WIDTH - 34, max(34, WIDTH * (day - first).days / span)), height + 16, day
        )
        for day in ticks
    )
    return Markup(
        '<svg class="chart" viewBox="0 -14 {} {}" role="img"><path class="axis" d="M0 0H{}M0 {}H{}M0 {}H{}"/>{}{}'
        '<text class="t" x="2" y="-3">{}</text></svg>'
    ).format(WIDTH, height + 34, WIDTH, height / 2, WIDTH, height, WIDTH, shapes, marks, number(top))
