"""Numbers as text of a report."""

import math
import platform

from echograd._internal._format import cores, processor, seconds

from ._html import Html, join, tag


def score(value: float | None) -> str:
    """Return a metric with three decimals; None (NaN in a file) is a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def count(n: float, one: str, many: str | None = None) -> str:
    """Return a count with its noun, in the singular or plural."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def duration(time: float) -> str:
    """Return a duration, in minutes from 60 s."""
    if time < 60:
        return seconds(time)
    minutes, rest = divmod(round(time), 60)
    return f"{minutes} min {rest} s"


def power(value: float) -> Html:
    """Return a number with a power of ten."""
    if value == 0 or not math.isfinite(value):
        return join(f"{value:g}")
    mantissa, exponent = f"{value:.1e}".split("e")
    return join(f"{mantissa}\N{THIN SPACE}×\N{THIN SPACE}10", tag("sup", str(int(exponent)).replace("-", "−")))


def machine() -> str:
    """Return processor, number of cores and operating system of this machine."""
    return f"{processor()}, {count(cores(), 'core')}, {platform.system()}"
