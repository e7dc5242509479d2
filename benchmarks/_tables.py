"""Stored results as tables in Markdown."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from echograd._internal import _format
from echograd._internal._format import seconds

Stored = dict[str, Any]
Figures = dict[str, Any]


def table(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Return a table; the first `left` columns are text, the others are numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *body)]


def memory(value: float | None) -> str:
    """Return a size, given in MB."""
    return _format.memory(None if value is None else 1e6 * value)


def number(value: float | None, form: str = ".3g") -> str:
    """Return a number, or a dash."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if form.endswith("g") and abs(value) >= 100 else format(value, form)
    return text.removeprefix("-") if text.strip("-0.") == "" else text


def times(value: float | None) -> str:
    """Return a factor."""
    return "–" if value is None else f"{number(value)} ×"


def over(a: Figures | None, b: Figures | None, key: str) -> float | None:
    """Return the ratio of a figure of a to that of b."""
    if a is None or b is None or not a.get(key) or not b.get(key):
        return None
    return a[key] / b[key]


def by_name(case: Stored) -> dict[str, Figures]:
    """Return the results of a case by contender."""
    return {result["contender"]: result for result in case["results"]}


def contenders(case: Stored, ratio: str, extra: Sequence[tuple[str, Callable[[Figures], str]]] = ()) -> list[str]:
    """Return a table of all figures of a case."""
    head = ["contender", "compilation", "run", ratio, "processor time", "temporary memory", "resident", "error"]
    body = []
    for r in case["results"]:
        cells = [
            r["contender"],
            seconds(r.get("compile_s")),
            seconds(r.get("run_s")),
            number(r.get("ratio")),
            seconds(r.get("processor_s")),
            memory(r.get("temporary_mb")),
            memory(r.get("resident_mb")),
            number(r.get("error"), ".0e"),
        ]
        if "failed" in r:
            cells[2] = f"*{r['failed']}*"
        if "agreement_failed" in r:
            cells[7] = f"*{r['agreement_failed']}*"
        body.append([*(cell.replace("|", "\\|") for cell in cells), *(of(r) for _, of in extra)])
    return table([*head, *(title for title, _ in extra)], body)


def simulation(cases: list[Stored]) -> list[str]:
    """Return the advantage of an echo, and all figures."""
    body = []
    for case in cases:
        found = by_name(case)
        echo, scan = found.get("echo"), found.get("lax.scan by hand")
        rivals = [r for name, r in found.items() if "checkpoint" in name.lower() and r.get("run_s")]
        best = min(rivals, key=lambda r: r["run_s"]) if rivals else None
        body.append(
            [
                case["name"],
                seconds(echo.get("run_s") if echo else None),
                number(echo.get("ratio") if echo else None, ".2f"),
                times(over(scan, echo, "run_s")),
                times(over(scan, echo, "temporary_mb")),
                times(over(best, echo, "run_s")),
                times(over(best, echo, "temporary_mb")),
                best["contender"] if best else "–",
            ]
        )
    head = [
        "case", "echo", "passes", "faster than scan backprop", "leaner", "faster than the best with checkpoints",
        "leaner", "which is",
    ]  # fmt: skip
    return [*table(head, body), *details(cases, "passes")]


def sequence(cases: list[Stored]) -> list[str]:
    """Return the advantage of an echo over published code, and all figures."""
    return _advantage(cases, "echo", "an echo")


def damped(cases: list[Stored]) -> list[str]:
    """Return the times of others relative to damped units, and all figures."""
    return _advantage(cases, "damped", "damped")


def _advantage(cases: list[Stored], base: str, said: str) -> list[str]:
    body = []
    for case in cases:
        least = by_name(case).get(base)
        for name, other in by_name(case).items():
            if name != base:
                keys = ("run_s", "resident_mb", "temporary_mb", "compile_s")
                body.append([case["name"], name, *(times(over(other, least, key)) for key in keys)])
    head = ["shape", f"takes, against {said}", "time", "resident", "temporary", "compilation"]
    return [*table(head, body, left=2), *details(cases, f"of {said}")]


def unit(cases: list[Stored]) -> list[str]:
    """Return all figures, with the time relative to both bounds."""
    lines = []
    for case in cases:
        found = by_name(case)
        copy, products = found.get("copy", {}), found.get("products", {})
        bandwidth = copy["moved_mb"] / 1e3 / copy["run_s"] if copy.get("run_s") else None
        lines += ["", f"**{case['name']}** ({_sizes(case)}); copy at {number(bandwidth)} GB/s", ""]
        bounds = [
            ("over copies", functools.partial(_per, copy, "moved_mb")),
            ("over products", functools.partial(_per, products, "products")),
        ]
        lines += contenders(case, "of a copy", bounds)
    return lines


def _per(least: Figures, amount: str, r: Figures) -> str:
    """Return the time relative to that of a bound, for the same amount of work."""
    time, work = over(r, least, "run_s"), over(r, least, amount)
    return times(time / work if time and work else None)


def boundary(cases: list[Stored]) -> list[str]:
    """Return the cost of a gradient, its fitted growth, and all figures."""
    body = []
    for case in cases:
        found = by_name(case)
        path, glep, backprop, other = (found.get(k, {}) for k in ("path", "Glep()", "Backprop()", "scipy solve_bvp"))
        body.append(
            [
                case["name"],
                seconds(path.get("run_s")),
                *(cell for r in (glep, backprop) for cell in (seconds(r.get("run_s")), number(r.get("ratio"), ".2f"))),
                memory(glep.get("temporary_mb")),
                number(glep.get("error"), ".0e"),
                seconds(other.get("run_s")) if "failed" not in other else f"*{other['failed']}*",
            ]
        )
    head = [
        "case", "path", "`Glep()`", "in paths", "`Backprop()`", "in paths", "memory of `Glep()`", "its error",
        "path by scipy",
    ]  # fmt: skip
    lines = table(head, body)
    fits = []
    for size, other, label in (("steps", "n", "N"), ("n", "steps", "n")):
        group = longest(cases, other)
        for name in by_name(group[0]) if len(group) > 1 else ():
            sizes = [case["sizes"][size] for case in group]
            found = [by_name(case).get(name, {}) for case in group]
            slopes = [exponent(sizes, [r.get(key) for r in found]) for key in ("run_s", "temporary_mb")]
            fixed = f"{other if other == 'n' else 'N'} = {group[0]['sizes'][other]:,}"
            fits.append([label, f"{min(sizes):,} … {max(sizes):,}", fixed, name, *(number(s, ".2f") for s in slopes)])
    if fits:
        lines += ["", "Fitted exponents, fixed ends:", ""]
        lines += table(["grows", "from … to", "where", "what", "time ~", "temporary memory ~"], fits, left=4)
    return [*lines, *details(cases, "of the path", [("path error", lambda r: number(r.get("path_error"), ".0e"))])]


def longest(cases: list[Stored], fixed: str) -> list[Stored]:
    """Return the longest series of problems with fixed ends in which the size `fixed` is constant."""
    groups: dict[int, list[Stored]] = {}
    for case in cases:
        if case["sizes"]["condition"] == "fixed ends":
            groups.setdefault(case["sizes"][fixed], []).append(case)
    return max(groups.values(), key=len, default=[])


def growth(cases: list[Stored]) -> list[str]:
    """Return fitted exponents, and all figures."""
    body = []
    for axis, of_axis in by_axis(cases).items():
        sizes = [case["sizes"]["size"] for case in of_axis]
        for name in ("forward", "echo", "backprop"):
            found = [by_name(case).get(name, {}) for case in of_axis]
            passes = [r["passes"] for r in found if "passes" in r]
            span = "–"
            if passes:
                low, high = min(passes), max(passes)
                span = f"{low:.3g}" if high - low < 0.005 * high else f"{low:.3g} … {high:.3g}"
            fits = [exponent(sizes, [r.get(key) for r in found]) for key in ("run_s", "temporary_mb", "passes")]
            body.append([axis, f"{min(sizes):,} … {max(sizes):,}", name, *(number(fit, ".2f") for fit in fits), span])
    head = ["grows", "from … to", "what", "time ~", "temporary memory ~", "passes ~", "passes"]
    return [
        *table(head, body, left=3),
        *details(cases, "of a forward run", [("passes", lambda r: number(r.get("passes")))]),
    ]


def by_axis(cases: list[Stored]) -> dict[str, list[Stored]]:
    """Return the cases of growth by the size that grows, in ascending order."""
    axes: dict[str, list[Stored]] = {}
    for case in sorted(cases, key=lambda case: case["sizes"]["size"]):
        axes.setdefault(case["sizes"]["axis"], []).append(case)
    order = ["N", "n", "batch", "parameters", "blocks"]
    return {axis: axes[axis] for axis in order if axis in axes}


def exponent(sizes: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Return the slope of a straight line through the logarithms; None for fewer than two points."""
    points = [(x, y) for x, y in zip(sizes, values, strict=True) if y is not None and y > 0]
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.log(np.asarray(points, float)).T
    return float(np.polyfit(x, y, 1)[0])


def details(cases: list[Stored], ratio: str, extra: Sequence[tuple[str, Callable[[Figures], str]]] = ()) -> list[str]:
    """Return all figures of all cases, in a collapsed section."""
    lines = ["", "<details><summary>All figures</summary>"]
    for case in cases:
        lines += ["", f"**{case['name']}** ({_sizes(case)})", "", *contenders(case, ratio, extra)]
    return [*lines, "", "</details>"]


def _sizes(case: Stored) -> str:
    sizes = [f"{key} {value:,}" if isinstance(value, int) else f"{value}" for key, value in case["sizes"].items()]
    return ", ".join([*sizes, case["dtype"]])


def friction(cases: list[Stored]) -> list[str]:
    """Return Rewind next to the leanest rival with checkpoints, the runs ahead and back, and all figures."""
    gradients = [case for case in cases if case["sizes"]["problem"] == "gradient"]
    longest_run = max((case["sizes"]["steps"] for case in gradients), default=0)
    body, goals = [], []
    for case in gradients:
        found = by_name(case)
        rivals = [r for name, r in found.items() if _is_rival(name) and r.get("run_s")]
        rival = min(rivals, key=lambda r: r["temporary_mb"]) if rivals else None
        lean = found.get("diffrax RecursiveCheckpointAdjoint, lean")
        for name in (name for name in found if name.startswith("Rewind")):
            r = found[name]
            leaner, slower = over(rival, r, "temporary_mb"), over(r, rival, "run_s")
            grows = name == "Rewind(bits)" and case["sizes"]["steps"] == longest_run  # elsewhere the record is small
            crossing = case["sizes"]["steps"] * leaner**2 if grows and leaner and leaner > 1 else None
            body.append(
                [
                    case["name"], name, seconds(r.get("run_s")), number(r.get("ratio"), ".2f"),
                    memory(r.get("temporary_mb")), number(r.get("bits"), ".4f"),
                    number(r.get("predicted_bits"), ".4f"), times(leaner),
                    number(slower, ".2f"), number(over(r, lean, "run_s"), ".2f"),
                    "–" if crossing is None else f"{crossing:.0e}",
                ]
            )  # fmt: skip
        goals += _goals(case, found, rival)
    head = [
        "case", "method", "time", "over the echo", "memory", "bits", "predicted", "leaner than the leanest rival",
        "time over its", "time over diffrax, lean", "crossing, steps",
    ]  # fmt: skip
    lines = table(head, body, left=2)
    lines += [
        "",
        "The leanest rival is the one with the least memory among those with about √N checkpoints or the default of "
        "diffrax. The crossing is the number of steps at which `Rewind(bits)` would need as much memory: its record "
        "grows with N, and checkpoints with √N (extrapolated from the case). Goals:",
        "",
        *goals,
    ]
    retraced = []
    for case in cases:
        for name, r in by_name(case).items() if case["sizes"]["problem"] != "gradient" else ():
            distance = r.get("distance", 0.0 if name == "ahead" else None)
            found = "–" if name == "ahead" else "not finite" if distance is None else f"{distance:.1e}"
            found = "0 (all bits equal)" if name.startswith("ahead and back, Rewind") and distance == 0 else found
            found = f"*{r['failed']}*" if "failed" in r else found
            cells = (
                number(r.get(key), form)
                for key, form in (("bits", ".4f"), ("energy_left", ".1e"), ("growth_rate", ".2f"))
            )
            retraced.append([case["name"], name, seconds(r.get("run_s")), memory(r.get("temporary_mb")), found, *cells])
    if retraced:
        head = [
            "case", "run", "time", "memory", "distance from the start", "bits", "energy left without drive",
            "growth rate of a deviation",
        ]  # fmt: skip
        lines += ["", *table(head, retraced, left=2)]
    return [*lines, *details(cases, "of the base", [("bits", lambda r: number(r.get("bits"), ".4f"))])]


def _is_rival(name: str) -> bool:
    return "heckpoint" in name and "Rewind" not in name and not name.endswith("lean")


def _goals(case: Stored, found: dict[str, Figures], rival: Figures | None) -> list[str]:
    """Return which goals the case reaches, one line each."""
    goal, lines = (50 if case["sizes"]["every"] > 1 else 8), []
    for name in ("Rewind(bits)", "Rewind(bits, checkpoints=4)"):
        r = found.get(name)
        leaner, part, ratio = over(rival, r, "temporary_mb"), over(r, rival, "run_s"), (r or {}).get("ratio")
        if leaner is None or part is None or ratio is None:
            lines.append(f"- {case['name']}, `{name}`: not measured")
            continue
        judged = (
            (f"{goal} × leaner ({number(leaner)} ×)", leaner >= goal),
            (f"half the time of that rival ({part:.2f})", part <= 0.5),
            (f"1.6 × the echo ({ratio:.2f} ×)", ratio <= 1.6),
        )
        said = "; ".join(f"{what}: {'hit' if good else 'missed'}" for what, good in judged)
        lines.append(f"- {case['name']}, `{name}`: {said}")
    return lines


TABLES: dict[str, Callable[[list[Stored]], list[str]]] = {
    "simulation": simulation,
    "sequence": sequence,
    "damped": damped,
    "unit": unit,
    "boundary": boundary,
    "growth": growth,
    "friction": friction,
}
