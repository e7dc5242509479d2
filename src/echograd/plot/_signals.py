"""A signal, what it is, and what it was taken for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from .._internal._errors import ArgumentError
from ._check import check_axes, numbers, real
from ._style import theme

_MOST = 4


def signal_with_prediction(
    axes: Axes,
    signal: Float[np.ndarray, "steps channels"],
    *,
    truth: str,
    prediction: str,
    right: bool | None = None,
    probability: float | None = None,
    sample_rate: float | None = None,
    channel_names: Sequence[str] = (),
) -> Axes:
    """Draw one case, channels above each other, under its truth (left) and its prediction (right).

    Args:
        axes: where to draw.
        signal: the case; of more than four channels, the first four are drawn.
        truth: what it is.
        prediction: what it was taken for.
        right: whether the prediction counts as right, which sets its sign and colour; `None` for neither.
        probability: of the prediction, between 0 and 1.
        sample_rate: in Hz; without it the axis counts steps.
        channel_names: names of the channels.

    Returns:
        The axes.

    Raises:
        TypeError: the signal, the rate or the probability is not a number.
        ValueError: the signal is not (steps, channels) and finite, the rate is not positive, the probability not
            between 0 and 1, or there are too few names of channels.
    """
    who = "signal_with_prediction"
    check_axes(who, axes)
    signal = numbers(who, "signal, (steps, channels),", signal, (None, None))
    if not np.isfinite(signal).all():
        raise ArgumentError(f"{who}: the signal has numbers that are NaN or infinite, which cannot be drawn.")
    if sample_rate is not None and real(who, "sample_rate", sample_rate) <= 0:
        raise ArgumentError(f"{who}: sample_rate={sample_rate!r} must be positive, or None.")
    if probability is not None and not 0 <= real(who, "probability", probability) <= 1:
        raise ArgumentError(f"{who}: probability={probability!r} is not between 0 and 1.")
    if channel_names and len(channel_names) < signal.shape[1]:
        raise ArgumentError(f"{who}: {len(channel_names)} channel_names for {signal.shape[1]} channels.")
    colours = theme()
    shown = signal[:, :_MOST]
    t = np.arange(len(signal)) / (sample_rate or 1.0)
    shift = 0.0
    for i, x in enumerate(shown.T):
        low, high = float(np.min(x)), float(np.max(x))
        # One scale for all channels, so that amplitudes compare; each starts below the lowest of the one above.
        base = shift - high
        axes.plot(t, x + base, color=colours.ink if i == 0 else colours.muted, lw=0.9 if i == 0 else 0.8)
        if channel_names and shown.shape[1] > 1:
            axes.annotate(
                str(channel_names[i]),
                (1, float(np.median(x)) + base),
                (3, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                size=7,
                color=colours.muted,
                va="center",
            )
        shift = base + low - 0.12 * max(high - low, 1e-12)
    axes.set_xlim(0, t[-1] if len(t) > 1 else 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("seconds" if sample_rate else "steps")
    axes.set_ylabel("signal, shifted" if shown.shape[1] > 1 else "signal")
    axes.set_title(truth, parse_math=False)
    mark = {True: "✓ ", False: "✗ ", None: ""}[right]
    odds = "" if probability is None else f", {_percent(probability)}"
    colour = {True: colours.echo, False: colours.nudge, None: colours.ink}[right]
    axes.set_title(f"{mark}{prediction}{odds}", loc="right", color=colour, parse_math=False)
    return axes


def _percent(probability: float) -> str:
    """Round to whole per cent, and call nothing certain."""
    return "> 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"
