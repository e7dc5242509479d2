"""A signal with its true and its predicted class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._check import check_axes, numbers
from ._style import theme

_CHANNELS = 4


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
    """Draw one case, channel below channel, under its truth (left) and its prediction (right).

    Args:
        axes: where to draw.
        signal: the case. The first four channels are drawn.
        truth: name of the true class.
        prediction: name of the predicted class.
        right: whether the prediction is right, which sets its sign and colour; `None` for neither.
        probability: probability of the prediction, between 0 and 1.
        sample_rate: sample rate in Hz; without it the axis counts steps.
        channel_names: names of the channels.

    Returns:
        The axes.

    Raises:
        ArgumentTypeError: if the signal is not real numbers.
        ArgumentError: if the signal does not have shape (steps, channels) or is not finite, the rate is not positive,
            the probability is not between 0 and 1, or there are fewer names than channels.

    Example:
        ```python
        figure, axes = plot.figure(4, 3)
        plot.signal_with_prediction(axes, np.random.randn(100, 2), truth="walking", prediction="running")
        ```
    """
    owner = "plot.signal_with_prediction"
    check_axes(owner, axes)
    signal = numbers(owner, "signal, (steps, channels),", signal, (None, None), finite=True)
    if sample_rate is not None:
        _checks.constant(owner, "sample_rate", sample_rate, _checks.positive, "it must be positive and finite, or None")
    if probability is not None:
        _checks.constant(owner, "probability", probability, lambda x: 0 <= x <= 1, "it must be between 0 and 1")
    if channel_names and len(channel_names) < signal.shape[1]:
        raise ArgumentError(f"{owner}: {len(channel_names)} channel_names for {signal.shape[1]} channels.")
    colours = theme()
    shown = signal[:, :_CHANNELS]
    t = np.arange(len(signal)) / (sample_rate or 1.0)
    shift = 0.0
    for i, x in enumerate(shown.T):
        low, high = float(np.min(x)), float(np.max(x))
        # All channels have one scale, so amplitudes can be compared. Each is drawn below the one before.
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
    """Round to whole per cent, but never to 100."""
    return "> 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"
