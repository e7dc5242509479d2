"""`echograd report`: write a report of a run, or a page that compares runs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from echograd import ArgumentError

from .. import report
from ._own import open_run
from ._tables import console


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a report of a run: scores, hard cases, where decisions were made, echo against backprop, memory and time.

    With several runs, write one page that compares them: settings, scores over seeds, learning curves, agreement.

    The page is one self-contained HTML file; its figures are also saved as PNG files. For one run, gradients, an echo,
    memory and time are measured again on this machine, which takes about a minute.

    Attributes:
        runs: folder of the run; or folders of several runs.
        out: name of the HTML file, or folder for it and for figures/. By default report.html in the folder of the run,
            and for several runs comparison.html in the current folder.
        title: title of the page.
        data: new place of the own file or folder that the runs were trained on, if it was moved.
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: pathlib.Path | None = None
    title: str | None = None
    data: pathlib.Path | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command, out = tyro.cli(Report, args=argv, prog="echograd report"), console()

    def say(text: str) -> None:
        out.print(f"{text} …", markup=False)

    if not command.runs:
        raise ArgumentError("name a run: `echograd report RUN`, or several runs to compare them.")
    runs = [open_run(folder, command.data) for folder in command.runs]
    if len(runs) == 1:
        path = report.write(runs[0], command.out, title=command.title, say=say)
    else:
        place = pathlib.Path("comparison.html") if command.out is None else command.out
        path = report.compare(runs, place, title=command.title, say=say)
    out.print(f"The report is {path}; its figures are in {path.parent / 'figures'}", markup=False, soft_wrap=True)
    return 0
