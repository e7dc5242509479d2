"""The section of a report about the oscillators: their rates and decays before and after training."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from echograd.nn import HSSM, NonlinearHRU
from echograd.plot import Theme

from ..training import Run, initial_model
from ._page import Page, draw

_MOST_BLOCKS = 6


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The oscillators of one block, without a drive.

    Attributes:
        angle: rotation angle of every oscillator in a step, in radians; for a saturating spring, that of small swings.
        decay: decay rate of every amplitude per step, or None without damping.
    """

    angle: np.ndarray
    decay: np.ndarray | None


def spectra(model: HSSM) -> list[Spectrum]:
    """Return the spectrum of every block."""
    found = []
    for block in model.blocks:
        system: Any = block.unit.system
        if isinstance(block.unit, NonlinearHRU):
            stiffness = np.asarray(system.stiffness + system.strength * system.gain, float)
            found.append(Spectrum(2 * np.arcsin(np.sqrt(np.clip(stiffness, 0, 4)) / 2), None))
        else:
            decay = getattr(system, "decay", None)
            found.append(Spectrum(np.asarray(system.angle, float), None if decay is None else np.asarray(decay, float)))
    return found


def rate_of(run: Run, model: HSSM) -> float | None:
    """Return the steps of the oscillators per second; None if the sample rate is not known."""
    rate = run.dataset.sample_rate
    return None if rate is None else rate / getattr(model, "patch", 1)


def before_and_after(run: Run) -> tuple[list[Spectrum], list[Spectrum]]:
    """Return the spectra of the untrained and of the trained model."""
    untrained, _ = initial_model(run.config, run.prepared)
    assert isinstance(untrained, HSSM)
    assert isinstance(run.model, HSSM)
    return spectra(untrained), spectra(run.model)


def oscillators(page: Page, run: Run, before: Sequence[Spectrum], after: Sequence[Spectrum]) -> None:
    """Draw how training moved the oscillators of every block."""
    assert isinstance(run.model, HSSM)
    rate = rate_of(run, run.model)
    damped = after[0].decay is not None
    frequency = (rate or 2 * math.pi) / (2 * math.pi)  # from radians per step to Hz, or 1
    unit = "Hz" if rate else "radians per step"
    shown = min(len(after), _MOST_BLOCKS)
    page.heading("What the oscillators became")
    page.text(
        "Every oscillator swings at a rate of its own, and so responds to that part of the spectrum of its input. "
        "Training moves the rates"
        + (" and the damping. " if damped else ". ")
        + "A rate is the angular frequency "
        + ("divided by 2π, in Hz" if rate else "in radians per step; 2π divided by it is the period in steps")
        + (", of swings so small that the spring does not saturate." if run.config.model == "nonlinear" else ".")
        + (" Damping is the rate at which a free amplitude decays; its inverse is the memory." if damped else "")
    )
    caption = (
        "Damping over rate before training (grey rings) and after it (blue dots). Lines join the two of an oscillator."
        if damped
        else "Every line is an oscillator, from its rate before training (below) to its rate after it (above). "
        "A vertical line did not change."
    ) + (f" The first {shown} of {len(after)} blocks." if shown < len(after) else "")
    page.figures(
        draw(
            "spectrum",
            lambda axes, colours: _paint(
                np.atleast_1d(axes), colours, before[:shown], after[:shown], frequency, unit, rate
            ),
            caption=caption,
            alt="; ".join(
                f"block {i + 1}: rates from {b.angle.min() * frequency:.2g} to {b.angle.max() * frequency:.2g} {unit} "
                f"before training, from {a.angle.min() * frequency:.2g} to {a.angle.max() * frequency:.2g} after it"
                for i, (b, a) in enumerate(zip(before, after, strict=True))
            ),
            height=0.5 + (2.3 if damped else 1.25) * shown,
            rows=shown,
            sharex=True,
        )
    )
    _table(page, before, after, frequency, unit, rate)


def _table(
    page: Page,
    before: Sequence[Spectrum],
    after: Sequence[Spectrum],
    frequency: float,
    unit: str,
    rate: float | None,
) -> None:
    damped = after[0].decay is not None
    rows = []
    for i, (b, a) in enumerate(zip(before, after, strict=True)):
        moved = np.median(np.abs(np.log(a.angle / b.angle)))
        row = [f"{i + 1}", f"{len(a.angle):,}"]
        row += [_range(b.angle * frequency), _range(a.angle * frequency), f"{100 * math.expm1(moved):.1f} %"]
        if b.decay is not None and a.decay is not None:
            row += [f"{1 / np.median(x) / (rate or 1):.3g}" for x in (b.decay, a.decay)]
        rows.append(row)
    head = ["block", "oscillators", f"rates before, {unit}", "after", "median change"]
    head += [f"median memory before, {'s' if rate else 'steps'}", "after"] if damped else []
    page.table(head, rows)


def _range(values: np.ndarray) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"


def _paint(
    axes: Sequence[Any],
    colours: Theme,
    before: Sequence[Spectrum],
    after: Sequence[Spectrum],
    frequency: float,
    unit: str,
    rate: float | None,
) -> None:
    for i, (ax, b, a) in enumerate(zip(axes, before, after, strict=True)):
        x = np.stack([b.angle, a.angle]) * frequency
        if b.decay is not None and a.decay is not None:
            y = np.stack([b.decay, a.decay]) * (rate or 1)
            ax.plot(x, y, color=colours.free, lw=0.7)
            ax.plot(x[0], y[0], "o", mfc="none", mec=colours.backprop, ms=4, label="before")
            ax.plot(x[1], y[1], "o", color=colours.echo, ms=4, label="after")
            ax.set_yscale("log")
            _label_decades(ax.yaxis)
            ax.set_title(f"Block {i + 1}: damping ({'1/s' if rate else 'per step'})")
            ax.grid()
            if i == 0:
                ax.legend(loc="best")
        else:
            ax.plot(x, [0, 1], color=colours.free, lw=0.7)
            ax.plot(x[0], np.zeros_like(x[0]), "o", mfc="none", mec=colours.backprop, ms=4)
            ax.plot(x[1], np.ones_like(x[1]), "o", color=colours.echo, ms=4)
            ax.set_yticks([0, 1], ["before", "after"])
            ax.set_ylim(-0.3, 1.3)
            ax.set_title(f"Block {i + 1}")
            ax.grid(axis="x")
        ax.set_xscale("log")
        _label_decades(ax.xaxis)
    axes[-1].set_xlabel(f"rate ({unit})")


def _label_decades(axis: Any) -> None:
    """Label 1, 2 and 5 of every decade of a logarithmic axis; only 1 if there are many decades."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
