"""`write`: measure a run again and write its report."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import jax

from echograd import GradientReport
from echograd._internal._files import make_folder
from echograd.nn import HSSM
from echograd.plot import CostRow

from ..training import Run
from ._calibration import calibrated
from ._compare import page_path
from ._costs import model_costs, oscillator_costs
from ._examples import examples
from ._gradients import agreement, costs, echo
from ._hard import hard_cases
from ._measure import Retrace, Subject, check_model, retrace
from ._page import REMEDY, Page, check_ours
from ._repeat import repeat
from ._scores import history, learned, learned_by, scores
from ._spectrum import before_and_after, oscillators
from ._unfinished import unfinished
from ._where import decisions, where

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
    """Write a report of a run: one self-contained HTML file, and its figures as PNG files.

    Scores and the model are read from the folder of the run. Gradients, an echo, memory and time are measured again on
    this machine, which takes about a minute. Damped oscillators have no echo: they cannot retrace their path. A
    Hopfield network has neither. The page of a run that is not finished shows its learning curves.

    Args:
        run: a run, or its folder.
        out: folder for `report.html` and `figures/`, or the name of the HTML file; by default the folder of the run.
        title: title of the page.
        command: a command that repeats all of it, to be shown on the page.
        say: called with a line of text before every slow step.

    Returns:
        The path of the HTML file.

    Raises:
        ArgumentTypeError: `run` is neither a run nor a path, or `out` is not a path.
        FileNotFoundError: there is no run, or no epoch of it is finished.
        DataError: a file of the run is damaged.
        FileExistsError: `out` is, or holds, a `report.html` that is not a report of echograd.
        OSError: the report cannot be written.

    Example:
        ```python
        echograd.workbench.report.write("runs/ecg")  # runs/ecg/report.html
        ```
    """
    run = run if isinstance(run, Run) else Run.open(run)
    records = [] if run.finished else run.history()
    name = run.config.dataset if records else run.results and run.config.dataset  # raises if there is nothing to show
    path = page_path("report.write", run.folder if out is None else out, "report.html")
    make_folder(path.parent, REMEDY)
    check_ours(path)
    say = say or (lambda _: None)
    page = Page(title or f"{name}, learned by {learned_by(run)}")
    if records:
        unfinished(page, run, records)
    else:
        _finished(page, run, say)
    repeat(page, run, command)
    page.write(path)
    return path


def _finished(page: Page, run: Run, say: Callable[[str], object]) -> None:
    """Measure a finished run, and write all sections but the last one."""
    model = run.model
    with jax.enable_x64(run.config.precision == "float64"):  # compute in the precision of the run
        say("running the model on the test cases")
        outputs = run.predict("test")
        say("measuring where the decisions were made")
        decided = decisions(run, outputs)
        found = _measured(run, model, say) if isinstance(model, HSSM) else None
        spectra = before_and_after(run) if isinstance(model, HSSM) else None

    say("drawing")
    learned(page, run, None if found is None else found.gradients)
    scores(page, run, outputs)
    if run.dataset.task == "classification":
        calibrated(page, run, outputs)
    history(page, run)
    examples(page, run, outputs)
    hard_cases(page, run, outputs)
    where(page, run, outputs, decided, None if found is None else _gradient_in_words(run))
    if spectra is not None:
        oscillators(page, run, *spectra)
    if found is None:
        page.text(
            "A Hopfield network relaxes to an equilibrium. It has no trajectory, so this page shows no echo and no "
            "oscillators.",
            kind="remark",
        )
        return
    agreement(page, found.gradients, found.rule, *found.compared)
    if found.retrace is not None:
        echo(page, found.retrace, run)
    costs(page, found.oscillators, found.whole, found.rule, found.timed, run)


def _gradient_in_words(run: Run) -> str:
    if run.config.gradient == "backprop":
        return "backpropagation"
    return "pass of reversed errors" if run.config.model == "damped" else "echo"


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What is measured again for a page: gradients, an echo, memory and time.

    `compared` is the number of cases, and of their steps, on which gradients are compared; `timed` that of timed cases.
    """

    rule: str
    gradients: GradientReport
    compared: tuple[int, int]
    retrace: Retrace | None
    oscillators: Sequence[CostRow]
    whole: Sequence[CostRow]
    timed: int


def _measured(run: Run, model: HSSM, say: Callable[[str], object]) -> _Measured:
    test = run.prepared.test
    few = Subject.of(model, run.state, test, _CHECKED_CASES, _CHECKED_STEPS)
    echoes = few.rule == "echo"
    say("comparing gradients by echo and by backpropagation" if echoes else "comparing gradients")
    gradients = check_model(few)
    subject = Subject.of(model, run.state, test, _TIMED_CASES)
    cases = len(subject.targets)
    # The echo that is shown is that of a model with one stack of blocks.
    shown = echoes and not model.reversed_blocks
    if shown:
        say("running an echo")
    found = retrace(subject, cases // 2) if shown else None
    say("measuring memory and time of gradients")
    every = model.every
    lengths = sorted({max(int(m * test.length) // every, 1) * every for m in _MULTIPLES})
    alone = oscillator_costs(subject, _OSCILLATOR_STEPS) if echoes else []
    whole = model_costs(subject, lengths)
    return _Measured(few.rule, gradients, (few.inputs.shape[0], few.inputs.shape[1]), found, alone, whole, cases)
