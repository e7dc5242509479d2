"""`write`: measure a run again and write its report."""

import os
import pathlib
from collections.abc import Callable

import jax

from echograd import ArgumentError
from echograd._internal._files import make_folder
from echograd.nn import HSSM

from .._paths import as_path
from ..training import Run
from . import _examples, _sections
from ._measure import Subject, check_model, model_costs, oscillator_costs, retrace
from ._page import REMEDY, Page, check_ours

# Gradients are compared on few cases and their first steps, to save time.
_CHECKED_CASES, _CHECKED_STEPS = 2, 256
_TIMED_CASES = 8
_OSCILLATOR_STEPS = (1000, 4000, 16000)
# The whole model is timed at these multiples of the length of a case.
_MULTIPLES = (0.5, 1, 2)


def write(
    run: Run | str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    command: str | None = None,
    say: Callable[[str], object] | None = None,
) -> pathlib.Path:
    """Write a report of a finished run: one self-contained HTML file, and its figures as PNG files.

    Scores and the model are read from the folder of the run. Gradients, an echo, memory and time are measured again on
    this machine, which takes about a minute. Damped oscillators have no echo: they cannot retrace their path.

    Args:
        run: a run, or its folder.
        out: folder for `report.html` and `figures/`; by default the folder of the run.
        title: title of the page.
        command: a command that repeats all of it, to be shown on the page.
        say: called with a line of text before every slow step.

    Returns:
        The path of `report.html`.

    Raises:
        ArgumentTypeError: `run` is neither a run nor a path, or `out` is not a path.
        FileNotFoundError: there is no run, or training is not finished.
        ArgumentError: the run is of a Hopfield network, which has no trajectory.
        DataError: a file of the run is damaged.
        FileExistsError: `out` holds a `report.html` that is not a report of echograd.
        OSError: the report cannot be written.

    Example:
        ```python
        echograd.workbench.report.write("runs/ecg")  # runs/ecg/report.html
        ```
    """
    run = run if isinstance(run, Run) else Run.open(run)
    name = run.results and run.config.dataset  # raises if training is not finished
    model = run.model
    if not isinstance(model, HSSM):
        raise ArgumentError(
            f"{run.folder} holds a Hopfield network, but a report is about trajectories and their echoes. "
            f"`echograd evaluate {run.folder}` prints the scores."
        )
    path = (run.folder if out is None else as_path("report.write", "out", out)) / "report.html"
    make_folder(path.parent, REMEDY)
    check_ours(path)
    say = say or (lambda _: None)
    page = Page(title or f"{name}, learned by {_sections.learned_by(run)}")
    test = run.prepared.test

    # Compute in the precision of the run.
    with jax.enable_x64(run.config.precision == "float64"):
        few = Subject.of(model, run.state, test, _CHECKED_CASES, _CHECKED_STEPS)
        echoes = few.rule == "echo"
        say("comparing gradients by echo and by backpropagation" if echoes else "comparing gradients")
        gradients = check_model(few)
        say("running the model on the test cases")
        outputs = run.predict("test")
        subject = Subject.of(model, run.state, test, _TIMED_CASES)
        cases = len(subject.targets)
        if echoes:
            say("running an echo")
        found = retrace(subject, cases // 2) if echoes else None
        say("measuring memory and time of gradients")
        every = model.every
        lengths = sorted({max(int(m * test.length) // every, 1) * every for m in _MULTIPLES})
        oscillators = oscillator_costs(subject, _OSCILLATOR_STEPS) if echoes else []
        whole = model_costs(subject, lengths)

    say("drawing")
    _sections.learned(page, run, gradients)
    _sections.scores(page, run, outputs)
    _sections.history(page, run)
    _examples.examples(page, run, outputs)
    _sections.agreement(page, gradients, few.rule, *few.inputs.shape[:2])
    if found is not None:
        _sections.echo(page, found, run)
    _sections.costs(page, oscillators, whole, few.rule, cases, run)
    _sections.repeat(page, run, command)
    page.write(path)
    return path
