"""Lines that can be told apart in both themes, also without colours."""

from typing import Any

from echograd.plot import Theme

# The colours of M. Okabe and K. Ito, which people with the common colour blindnesses can distinguish. On the dark
# paper they are lighter.
_COLOURS = {
    "light": ("#0072b2", "#d55e00", "#00795a", "#b0447f", "#7a6100", "#5c6473"),
    "dark": ("#56b4e9", "#f08a3c", "#35c79c", "#e49ac4", "#e2c94d", "#a7afbb"),
}
_DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), (0, (8, 2)))


def is_dark(colours: Theme) -> bool:
    """Return whether the paper is dark."""
    return int(colours.paper[1:3], 16) < 128


def line_styles(colours: Theme, count: int) -> list[dict[str, Any]]:
    """Return colour and dashes of several lines; they repeat only after many."""
    chosen = _COLOURS["dark" if is_dark(colours) else "light"]
    n = len(chosen)
    return [{"color": chosen[i % n], "ls": _DASHES[(i + i // n) % n], "lw": 1.5} for i in range(count)]
