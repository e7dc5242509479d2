"""`echograd report`: write a report of a run."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import tyro

from .. import report
from ._own import open_run
from ._tables import console


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a report of a run: scores, examples, echo against backprop, memory and time.

    The report is one self-contained HTML file; its figures are also saved as PNG files. Gradients, an echo, memory and
    time are measured again on this machine, which takes about a minute.

    Attributes:
        run: folder of the run.
        out: folder for report.html and figures/; by default the folder of the run.
        title: title of the report.
        data: new place of the own file or folder that the run was trained on, if it was moved.
    """

    run: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: pathlib.Path | None = None
    title: str | None = None
    data: pathlib.Path | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command, out = tyro.cli(Report, args=argv, prog="echograd report"), console()
    path = report.write(
        open_run(command.run, command.data),
        command.out,
        title=command.title,
        say=lambda text: out.print(f"{text} …", markup=False),
    )
    out.print(f"The report is {path}; its figures are in {path.parent / 'figures'}", markup=False, soft_wrap=True)
    return 0
