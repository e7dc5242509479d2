"""From a run's folder to a page."""

import os
import pathlib
from collections.abc import Callable

import jax

from echograd import ArgumentError
from echograd._internal._files import make_folder
from echograd.nn import HSSM

from ..training import Run
from . import _sections
from ._measure import Subject, check_model, model_costs, oscillator_costs, retrace
from ._page import REMEDY, Page, check_ours

# Gradients are compared on few cases and their first steps: comparing all parameters need not take minutes.
_CHECKED_CASES, _CHECKED_STEPS = 2, 256
_TIMED_CASES = 8
_OSCILLATOR_STEPS = (1000, 4000, 16000)
# The whole model is timed at these multiples of its cases' length.
_MULTIPLES = (0.5, 1, 2)


def write(
    run: Run | str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    command: str | None = None,
    say: Callable[[str], object] | None = None,
) -> pathlib.Path:
    """Write a report of a finished run: one HTML file that needs nothing else, and its figures as PNG files beside it.

    What the run left is read from its folder. The comparison of gradients, the echo, memory and time are measured anew,
    on this machine, which takes a minute or so.

    Args:
        run: a run, or its folder.
        out: folder for `report.html` and `figures/`; the run's own by default.
        title: of the page.
        command: a command that does all of it again, if there is one.
        say: called with a line of text before everything that takes time.

    Returns:
        The path of `report.html`.

    Raises:
        TypeError: `run` is neither a run nor a path.
        FileNotFoundError: there is no run, or it has not come to its end.
        ValueError: the run is of a Hopfield network, which has no trajectory.
        FileExistsError: `out` holds a `report.html` that is not one of these.
        OSError: it cannot be written there.

    Example:
        ```python
        echograd.workbench.report.write("runs/ecg")  # runs/ecg/report.html
        ```
    """
    run = run if isinstance(run, Run) else Run.open(run)
    name = run.results and run.config.dataset  # a run that has not come to its end raises here
    model = run.model
    if not isinstance(model, HSSM):
        raise ArgumentError(
            f"{run.folder} holds a Hopfield network, and a report is about trajectories and their echoes. Its scores: "
            f"`echograd evaluate {run.folder}`."
        )
    path = (run.folder if out is None else pathlib.Path(out)) / "report.html"
    make_folder(path.parent, REMEDY)
    check_ours(path)
    say = say or (lambda _: None)
    page = Page(title or f"{name}, learned by {'echoes' if run.config.gradient == 'echo' else 'backpropagation'}")
    test = run.prepared.test

    # The run's own precision, whatever is set outside.
    with jax.enable_x64(run.config.precision == "float64"):
        say("comparing gradients by echo and by backpropagation")
        few = Subject.of(model, run.state, test, _CHECKED_CASES, _CHECKED_STEPS)
        gradients = check_model(few)
        say("running the model on the test cases")
        outputs = run.predict("test")
        say("running an echo back along its path")
        subject = Subject.of(model, run.state, test, _TIMED_CASES)
        cases = len(subject.targets)
        found = retrace(subject, cases // 2)
        say("measuring memory and time of echo and backpropagation")
        every = model.every
        lengths = sorted({max(int(m * test.length) // every, 1) * every for m in _MULTIPLES})
        oscillators, whole = oscillator_costs(subject, _OSCILLATOR_STEPS), model_costs(subject, lengths)

    say("drawing")
    _sections.learned(page, run, gradients)
    _sections.scores(page, run, outputs)
    _sections.history(page, run)
    _sections.examples(page, run, outputs)
    _sections.agreement(page, gradients, *few.inputs.shape[:2])
    _sections.echo(page, found, run)
    _sections.costs(page, oscillators, whole, cases, run)
    _sections.repeat(page, run, command)
    page.write(path)
    return path
