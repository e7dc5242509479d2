"""Sections of a report about gradients: their agreement, an echo, memory and time."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from echograd import GradientReport, plot
from echograd._internal._format import memory
from echograd.plot import CostRow

from ..training import Run
from ._format import count, duration, machine, power
from ._html import isolated, join, tag
from ._measure import Retrace
from ._page import Page, draw

# Largest relative error of an exact gradient in float64.
_TOLERANCE = 1e-9


def agreement(page: Page, report: GradientReport, rule: str, cases: int, steps: int) -> None:
    """Compare the gradient of the model with backprop, parameter by parameter."""
    worst = max(report.rows, key=lambda row: np.nan_to_num(row["relative_error"], nan=np.inf))
    reciprocal = rule == "reciprocal"
    what = "Reversed errors" if reciprocal else "Echo"
    page.heading(f"{what} against backpropagation")
    page.text(
        "Damped oscillators cannot be run back. But the same lossy machine, started at rest and driven by the reversed "
        "errors, measures the gradient. "
        if reciprocal
        else "An echo measures a gradient by running the machine again. ",
        "Here it is compared with backpropagation through "
        f"the same steps, in float64, on {count(cases, 'test case')} of {steps:,} steps. The relative error of a "
        "parameter array is the norm of the difference over the norm of the gradient. The largest error is ",
        tag("strong", power(worst["relative_error"])),
        ", for ",
        isolated(worst["parameter"]),
        ". ",
        "That is rounding."
        if report.ok(_TOLERANCE)
        else join("That is more than the ", power(_TOLERANCE), " that an exact gradient may have."),
    )
    names = len({row["parameter"] for row in report.rows})
    page.figures(
        draw(
            "gradients",
            lambda axes, _: plot.gradient_agreement(axes, report.rows, tolerance=_TOLERANCE),
            caption="Relative error of the gradient. Hollow points: less than a tenth of the rounding unit, or 0.",
            alt=f"Relative error of the gradient by {what.lower()}, for every parameter",
            height=0.7 + 0.155 * names,
        )
    )
    table = report.cells()  # without its first column, the name of the candidate
    page.table(table.head[1:], [row[1:] for row in table.rows])
    page.text(
        "The Taylor slope needs no second gradient. It is about 2 if the gradient is right, and 1 if it is wrong. "
        "Values in between occur only if the loss is strongly curved. A dash means that the loss is too close to "
        "linear in this parameter for the test.",
        kind="remark",
    )


def echo(page: Page, found: Retrace, run: Run) -> None:
    """Plot an echo that retraces a trajectory."""
    rate = run.dataset.sample_rate
    t, unit = found.steps / (rate or 1.0), "seconds" if rate else "steps"
    part = found.steps <= 0.3 * found.steps[-1]
    page.heading("An echo")
    page.text(
        "The oscillators of the first block ran on a test case. Then all momenta were flipped, and the same "
        "oscillators ran over the inputs in reverse order. They retrace their path: the relative distance from it is "
        "at most ",
        power(float(found.echo_error.max())),
        f" over {count(len(found.steps) - 1, 'step')} in {run.config.precision}. A nudge by the gradient of the loss "
        "at every step drives them away from the path. The displacement per strength of the nudge gives the gradient. "
        "The nudge shown here is large enough to be visible; in training it is infinitesimal.",
    )
    page.figures(
        draw(
            "echo-time",
            lambda axes, _: plot.echo_in_time(
                axes,
                t,
                found.forward[:, 0],
                found.echo[:, 0],
                found.nudged[:, 0],
                unit=unit,
                quantity=f"Position of oscillator {found.unit}",
            ),
            caption="The free run goes from left to right, the echoes from right to left.",
            alt="Position over time of the free run, its echo and a nudged echo",
            height=2.7,
        ),
        draw(
            "echo-distance",
            lambda axes, _: plot.departure(axes, t, found.echo_error, found.nudged_error, unit=unit),
            caption="Distance of all oscillators from the forward run, relative to its norm.",
            alt="Distance from the forward run of the echo and of the nudged echo, over time",
            height=2.7,
        ),
        draw(
            "echo-path",
            lambda axes, _: plot.echo_path(
                axes,
                found.forward[part],
                found.echo[part][::-1],
                found.nudged[part][::-1],
                equal=False,
                names=("position", "momentum"),
            ),
            caption="The same oscillator in phase space, in the first part of the run, which the nudged echo reaches "
            "last. Colours as before.",
            alt="Phase plane of the free run, its echo and a nudged echo",
            height=3.6,
        ),
    )


def costs(
    page: Page, oscillators: Sequence[CostRow], whole: Sequence[CostRow], rule: str, cases: int, run: Run
) -> None:
    """Compare memory and time of the gradient of the model and of backprop."""
    page.heading("What it costs")
    page.text(
        "Memory is what a compiled gradient allocates besides its arguments and its result. Time is the median of "
        f"repeats in turns. Measured for this page in {run.config.precision}, with JAX {jax.__version__} on "
        f"{jax.default_backend()}: {machine()}."
    )

    def paint(rows: Sequence[CostRow]) -> Any:
        return lambda axes, _: (plot.costs(axes[0], rows, "bytes"), plot.costs(axes[1], rows, "seconds"))

    units = run.config.network.units * (1 + run.config.network.complex)
    drawings = [
        draw(
            "costs-model",
            paint(whole),
            caption=f"The whole model on {count(cases, 'case')}. The layers between the oscillators store sequences "
            "with both methods.",
            alt="Memory and time of a gradient of the whole model over the number of steps",
            height=4.6,
            rows=2,
        )
    ]
    if oscillators:
        alone = draw(
            "costs-oscillators",
            paint(oscillators),
            caption=f"The {units} oscillators of one block alone, with a running cost. The echo stores the final state "
            "only.",
            alt="Memory and time of a gradient through the oscillators over the number of steps",
            height=4.6,
            rows=2,
        )
        drawings.insert(0, alone)
    page.figures(*drawings)
    table = []
    for name, rows in (("oscillators", oscillators), ("whole model", whole)):
        for n in sorted({row["steps"] for row in rows}):
            a, b = ({row["gradient"]: row for row in rows if row["steps"] == n}[key] for key in (rule, "backprop"))
            table.append(
                [
                    name,
                    f"{n:,}",
                    memory(a["bytes"]),
                    memory(b["bytes"]),
                    duration(a["seconds"]),
                    duration(b["seconds"]),
                ]
            )
    head = ["gradient of", "steps", f"memory, {rule}", "backprop", f"time, {rule}", "backprop"]
    page.table(head, table)
