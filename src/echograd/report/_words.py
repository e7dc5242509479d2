"""Numbers as they stand in text."""

import math
import os
import platform
import re
from pathlib import Path

from ._html import Html, join, tag


def score(value: float | None) -> str:
    """Return a metric to three decimals; files have nothing where there is no number."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def count(n: float, one: str, many: str | None = None) -> str:
    """Return a number of things."""
    return f"{n:,.0f} {one if n == 1 else many or one + 's'}"


def memory(size: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def duration(seconds: float) -> str:
    """Return a time."""
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def power(value: float) -> Html:
    """Return a small or large number as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return join(f"{value:g}")
    mantissa, exponent = f"{value:.1e}".split("e")
    return join(f"{mantissa}\N{THIN SPACE}×\N{THIN SPACE}10", tag("sup", str(int(exponent)).replace("-", "−")))


def machine() -> str:
    """Return what this machine computes with."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(errors="replace"))
        name = found.group(1).strip() if found else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {count(cores, 'core')}, {platform.system()}"
