"""`python -m benchmarks`: run the benchmark suite and write its page."""

import dataclasses
import itertools
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from echograd._internal._files import make_folder
from echograd.workbench.cli._main import guarded
from echograd.workbench.cli._signals import exit_code, told
from echograd.workbench.cli._tables import console

from ._contest import Effort
from ._page import write_page
from ._results import REMEDY
from ._suite import measure, planned

_QUICK = pathlib.Path("runs") / "bench-quick"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Run the benchmark suite: time, memory and error of our gradients and of others.

    Every row has a JSON file, which is written after every case. Then one page with plots is written from these files.
    Measured cases are kept, so an interrupted run resumes where it was.

    Attributes:
        rows: simulation, sequence, damped, unit, boundary, growth, friction; by default all.
        quick: tiny sizes, as a test of the suite; results and page go into runs/bench-quick.
        peer: clones of published code: github.com/guillaumepourcel/rhel, github.com/tk-rusch/linoss,
            github.com/jaredbmit/damped-linoss.
        out: folder of the JSON files; by default benchmarks/results.
        docs: folder of benchmarks.md, with plots in images/; by default docs.
        only: measure only cases whose name contains this.
        fresh: measure all cases again.
        page_only: measure nothing; write the page from the files.
        repeats: number of turns of every contender; the median counts.
        seconds: begin no further turn of a case after this many seconds; three turns are always made.
        limit_mb: do not run contenders that need more temporary memory; by default 60 % of the memory of the machine.
        patience: give up a contender that takes more seconds to compile and run once.
    """

    rows: Annotated[
        tuple[Literal["simulation", "sequence", "damped", "unit", "boundary", "growth", "friction"], ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="ROWS"),
    ] = ()
    quick: bool = False
    peer: tyro.conf.UseAppendAction[tuple[tuple[pathlib.Path, ...], ...]] = ()
    out: pathlib.Path | None = None
    docs: pathlib.Path | None = None
    only: str | None = None
    fresh: bool = False
    page_only: bool = False
    repeats: int | None = None
    seconds: float = Effort.seconds
    limit_mb: float | None = None
    patience: float = Effort.patience


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return guarded("benchmarks", lambda: _main(arguments))


def _main(argv: Sequence[str]) -> int:
    command, out = tyro.cli(Bench, args=argv, prog="python -m benchmarks"), console()
    usual = (_QUICK, _QUICK) if command.quick else (pathlib.Path("benchmarks") / "results", pathlib.Path("docs"))
    results, docs = command.out or usual[0], command.docs or usual[1]
    rows, peers = command.rows or None, tuple(itertools.chain(*command.peer))
    if not command.page_only:
        planned(rows, quick=command.quick, only=command.only, peers=peers)  # raises before a folder is made
    for folder in (docs,) if command.page_only else (results, docs):  # raise before anything is measured
        make_folder(folder, REMEDY)
    if not command.page_only:
        # This process only asks for the kind of device; the contenders need the memory of a GPU.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        chosen = {name: getattr(command, name) for name in ("repeats", "seconds", "limit_mb", "patience")}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        try:
            measure(
                rows,
                results,
                quick=command.quick,
                fresh=command.fresh,
                only=command.only,
                peers=peers,
                effort=Effort(**({"repeats": 2} if command.quick else {}) | chosen),
                say=lambda text: out.print(text, markup=False, soft_wrap=True),
            )
        except KeyboardInterrupt as stop:
            words = shlex.join(["python", "-m", "benchmarks", *(word for word in argv if word != "--fresh")])
            print(f"{told(stop)}. Measured cases are in {results}. Resume with: {words}", file=sys.stderr)
            return exit_code(stop)
    out.print(f"The page is {write_page(results, docs)}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
