"""Stored results as plots."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from echograd import plot

from ._tables import by_axis, by_name, exponent, longest, memory, number, seconds

Stored = dict[str, Any]
Series = dict[str, list[tuple[float, float]]]


def draw(row: str, cases: list[Stored]) -> bytes | None:
    """Return the plot of a row as PNG, or None if there are too few points."""
    with plot.style() as colours:
        fig = FIGURES[row](cases, colours)
        return None if fig is None else plot.png(fig, dpi=160)


def looks(names: Sequence[str], colours: plot.Theme) -> dict[str, dict[str, Any]]:
    """Return colour, line and marker of every contender: echoes are blue, free runs grey, others follow in order."""
    fixed: dict[str, dict[str, Any]] = {
        "echo": {"color": colours.echo, "marker": "o"},
        "Glep()": {"color": colours.echo, "marker": "o"},
        "forward": {"color": colours.free, "marker": ".", "ls": ":"},
        "path": {"color": colours.free, "marker": ".", "ls": ":"},
        "copy": {"color": colours.free, "marker": ".", "ls": ":"},
        "backprop": {"color": colours.backprop, "marker": "s", "ls": (0, (4, 1.5))},
        "Backprop()": {"color": colours.backprop, "marker": "s", "ls": (0, (4, 1.5))},
    }
    marks, lines = "D^vPX*<>", ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
    others = [name for name in names if name not in fixed]
    for i, name in enumerate(others):
        color = (colours.nudge, colours.ink, colours.muted)[i % 3]
        fixed[name] = {"color": color, "marker": marks[i % 8], "ls": lines[i % 4]}
    return {name: fixed[name] for name in names}


def lines(
    axes: Axes, series: Series, colours: plot.Theme, title: str, label: str, form: Callable[[float], str]
) -> None:
    """Draw lines on logarithmic axes."""
    for name, look in looks(list(series), colours).items():
        points = sorted(series[name])
        if points:
            axes.plot(*zip(*points, strict=True), label=name)[0].set(**look)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({x for points in series.values() for x, _ in points})
    axes.set_xticks(ticks, [_short(x) for x in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.grid(axis="y")
    axes.set_title(title)
    axes.set_xlabel(label)


def _short(x: float) -> str:
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if x >= scale:
            return f"{x / scale:.3g}{unit}"
    return f"{x:g}"


def collect(cases: list[Stored], size: str, key: str) -> Series:
    """Return one figure of all contenders as a function of a size."""
    series: Series = {}
    for case in cases:
        for name, r in by_name(case).items():
            if r.get(key):
                series.setdefault(name, []).append((case["sizes"][size], r[key]))
    return series


def simulation(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw time and memory over the steps, for the system with the most numbers of steps."""
    groups: dict[tuple[str, str], list[Stored]] = {}
    for case in cases:
        groups.setdefault((case["sizes"]["system"], case["dtype"]), []).append(case)
    (system, dtype), group = max(groups.items(), key=lambda item: len(item[1]))
    if len(group) < 2:
        return None
    fig, panels = plot.figure(9.0, 3.8, columns=2)
    label = f"steps of {system}, {dtype}"
    lines(panels[0], collect(group, "steps", "run_s"), colours, "Time of a gradient", label, seconds)
    lines(panels[1], collect(group, "steps", "temporary_mb"), colours, "Temporary memory", label, memory)
    _legend(fig, panels[0])
    return fig


def _legend(fig: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def bars(
    axes: Axes, case: Stored, of: Callable[[dict[str, Any]], float | None], form: Any, colours: plot.Theme
) -> None:
    """Draw one figure of the contenders of a case as bars with their values."""
    names = list(by_name(case))[::-1]
    values = [of(by_name(case)[name]) for name in names]
    echoes = [colours.echo if name in ("echo", "damped") else colours.free for name in names]
    axes.barh(range(len(names)), [value or 0.0 for value in values], color=echoes, height=0.6)
    for i, value in enumerate(values):
        axes.annotate(form(value), (value or 0.0, i), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.margins(x=0.25)
    axes.spines["bottom"].set_visible(False)


def sequence(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw step time, resident memory and compilation of every shape."""
    height = 0.5 + sum(0.35 + 0.2 * len(case["results"]) for case in cases)
    fig, panels = plot.figure(9.0, height, rows=len(cases), columns=3, squeeze=False)
    for row, case in zip(panels, cases, strict=True):
        for axes, key, form in zip(row, ("run_s", "resident_mb", "compile_s"), (seconds, memory, seconds), strict=True):
            bars(axes, case, lambda r, key=key: r.get(key), form, colours)
        row[0].set_ylabel(case["name"])
        for axes in row[1:]:
            axes.set_yticks([])
    for axes, title in zip(panels[0], ("A training step", "Resident memory", "Compilation"), strict=True):
        axes.set_title(title)
    return fig


def unit(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw times relative to the bandwidth bound."""
    fig, panels = plot.figure(9.0, 1.7, columns=len(cases), squeeze=False)
    for axes, case in zip(panels[0], cases, strict=True):
        copy = by_name(case).get("copy", {})
        if not copy.get("run_s"):
            return None

        def bound(r: dict[str, Any], copy: dict[str, Any] = copy) -> float | None:
            return r["run_s"] / copy["run_s"] / (r["moved_mb"] / copy["moved_mb"]) if r.get("run_s") else None

        bars(axes, case, bound, lambda value: "–" if value is None else f"{value:.1f} ×", colours)
        axes.set_title(f"{case['name']}: time over the bound")
    return fig


def boundary(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw time and memory over the steps and over the coordinates."""
    chosen = []
    for size, other in (("steps", "n"), ("n", "steps")):
        group = longest(cases, other)
        if not group:
            return None
        value = group[0]["sizes"][other]
        chosen.append((size, f"steps, {value:,} masses" if size == "steps" else f"masses, {value:,} steps", group))
    fig, panels = plot.figure(9.0, 3.4, columns=4)
    for axes, (size, label, group) in zip(panels[:2], chosen, strict=True):
        lines(axes, collect(group, size, "run_s"), colours, "Time", label, seconds)
    for axes, (size, label, group) in zip(panels[2:], chosen, strict=True):
        lines(axes, collect(group, size, "temporary_mb"), colours, "Temporary memory", label, memory)
    _legend(fig, panels[0])
    return fig


def growth(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw time, memory and passes over every size that grows, with fitted exponents."""
    axes_of = by_axis(cases)
    rows = (("run_s", "Time", seconds), ("temporary_mb", "Temporary memory", memory), ("passes", "Passes", _short))
    fig, panels = plot.figure(11.0, 7.0, rows=3, columns=len(axes_of), squeeze=False)
    for column, (axis, group) in enumerate(axes_of.items()):
        for row, (key, title, form) in enumerate(rows):
            axes, series = panels[row, column], collect(group, "size", key)
            lines(axes, series, colours, title if column == 0 else "", axis if row == 2 else "", form)
            if key == "passes":
                axes.set_ylim(0.5, 20)
                axes.set_yticks([1, 2, 5, 10])
            said = []
            for name, points in series.items():
                slope = exponent(*zip(*points, strict=True))
                if slope is not None:
                    said.append(f"{name} ~ {number(slope, '.2f')}")
            axes.annotate("\n".join(said), (0.04, 0.97), xycoords="axes fraction", va="top", fontsize=7)
            if row < 2:
                axes.set_xticklabels([])
                low, high = axes.get_ylim()
                axes.set_ylim(low, high * (high / low) ** 0.35)
    _legend(fig, panels[0, 0])
    return fig


def friction(cases: list[Stored], colours: plot.Theme) -> Figure | None:
    """Draw time and memory over the steps, for both chains."""
    groups: dict[int, list[Stored]] = {}
    for case in cases:
        if case["sizes"]["problem"] == "gradient":
            groups.setdefault(case["sizes"]["every"], []).append(case)
    if not groups or max(map(len, groups.values())) < 2:
        return None
    fig, panels = plot.figure(11.0, 4.2, columns=2 * len(groups))
    for i, (every, group) in enumerate(groups.items()):
        label = "steps, all damped" if every == 1 else "steps, a tenth damped"
        lines(panels[2 * i], collect(group, "steps", "run_s"), colours, "Time of a gradient", label, seconds)
        lines(panels[2 * i + 1], collect(group, "steps", "temporary_mb"), colours, "Temporary memory", label, memory)
    _legend(fig, panels[0])
    return fig


FIGURES: dict[str, Callable[[list[Stored], plot.Theme], Figure | None]] = {
    "simulation": simulation,
    "sequence": sequence,
    "damped": sequence,
    "unit": unit,
    "boundary": boundary,
    "growth": growth,
    "friction": friction,
}
