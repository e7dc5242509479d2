"""Times, sizes and hardware as text."""

import os
import platform
from pathlib import Path


def seconds(value: float | None) -> str:
    """Return a time in seconds as text; `None` is a dash."""
    return _in_units(value, {"s": 1.0, "ms": 1e-3, "µs": 1e-6})


def memory(size: float | None) -> str:
    """Return a number of bytes as text; `None` is a dash."""
    return _in_units(size, {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0})


def _in_units(value: float | None, units: dict[str, float]) -> str:
    """Return a number in the largest unit that it reaches, or in the smallest."""
    if value is None:
        return "–"
    unit = next((unit for unit, scale in units.items() if value >= scale), list(units)[-1])
    return f"{value / units[unit]:.3g} {unit}"


def processor() -> str:
    """Return the model of the processor, or its architecture if the system does not report it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def physical_memory() -> int | None:
    """Return the memory of the machine in bytes, or `None` if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
