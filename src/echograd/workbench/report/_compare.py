"""`compare`: several runs side by side on one page."""

import os
import pathlib
from collections.abc import Callable, Sequence

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal._files import make_folder

from .._paths import as_path
from ..training import Run
from ._comparison import Compared, agreement, curves, scores, settings
from ._page import REMEDY, Page, check_ours


def compare(
    runs: Sequence[Run | str | os.PathLike],
    out: str | os.PathLike = "comparison.html",
    *,
    title: str | None = None,
    say: Callable[[str], object] | None = None,
) -> pathlib.Path:
    """Write one HTML page that compares several runs.

    The page shows the settings that differ, scores with mean and standard deviation over runs that differ only in the
    seed, learning curves, and on how many test cases two runs agree. Runs that are not finished have curves only.

    Args:
        runs: two or more runs, or their folders.
        out: the HTML file, or a folder for `comparison.html`. Figures are also saved in `figures/` beside it.
        title: title of the page.
        say: called with a line of text before every slow step.

    Returns:
        The path of the page.

    Raises:
        ArgumentTypeError: `runs` is not a sequence of runs or paths, or `out` is not a path.
        ArgumentError: there are fewer than two runs.
        FileNotFoundError: a folder holds no run.
        DataError: a file of a run is damaged.
        FileExistsError: `out` is a file that is not a report of echograd.
        OSError: the page cannot be written.

    Example:
        ```python
        echograd.workbench.report.compare(["runs/linear", "runs/damped"], "linear-or-damped.html")
        ```
    """
    if isinstance(runs, str | os.PathLike | Run) or not isinstance(runs, Sequence):
        raise ArgumentTypeError("compare: runs must be a list of runs or folders. For one run, call `report.write`.")
    if len(runs) < 2:
        raise ArgumentError(f"compare: {len(runs)} runs; pass at least two. For one run, call `report.write`.")
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    path = page_path("report.compare", out, "comparison.html")
    make_folder(path.parent, REMEDY)
    check_ours(path)
    say = say or (lambda _: None)
    say("reading the runs")
    compared = Compared.of(opened)
    say("running the models on the test cases")
    predictions = compared.predictions()
    say("drawing")
    page = Page(title or f"{len(opened)} runs side by side")
    settings(page, compared)
    scores(page, compared)
    curves(page, compared)
    agreement(page, compared, predictions)
    page.write(path)
    return path


def page_path(owner: str, out: str | os.PathLike, name: str) -> pathlib.Path:
    """Return the HTML file for a path that is a file or a folder."""
    path = as_path(owner, "out", out)
    return path if path.suffix == ".html" and not path.is_dir() else path / name
