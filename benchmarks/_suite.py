"""The suite: all rows, and `measure`, which measures missing cases and writes each result at once."""

from collections.abc import Sequence
from pathlib import Path

from echograd import ArgumentError
from echograd._internal._files import make_folder
from echograd._internal._format import seconds

from . import _boundary, _damped, _friction, _growth, _results, _sequence, _simulation, _unit
from ._case import Case, Row
from ._contest import Effort, Figures, Say, contest, measure_untimed
from ._sequence import find_peers

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        _simulation.ROW,
        _sequence.ROW,
        _damped.ROW,
        _unit.ROW,
        _boundary.ROW,
        _growth.ROW,
        _friction.ROW,
    )
}


def planned(
    rows: Sequence[str] | None = None, *, quick: bool = False, only: str | None = None, peers: Sequence[Path] = ()
) -> dict[str, list[Case]]:
    """Return the cases of every row that `measure` measures with the same arguments and no stored results.

    Args:
        rows: names of rows; by default all of `ROWS`.
        quick: tiny sizes.
        only: leave out cases whose name does not contain this.
        peers: clones of published code.

    Returns:
        Cases by the name of their row.

    Raises:
        ArgumentError: a row does not exist, a folder does not hold published code, or there is no case.

    Example:
        ```python
        import benchmarks

        benchmarks.planned(["simulation"], only="fput")["simulation"][0].contenders
        ```
    """
    chosen = list(ROWS) if rows is None else list(rows)
    for name in chosen:
        if name not in ROWS:
            raise ArgumentError(f"there is no row {name!r}; choose from {', '.join(ROWS)}.")
    known = find_peers(list(peers))
    cases = {name: ROWS[name].cases(quick, known) for name in chosen}
    cases = {name: [case for case in row if only is None or only in case.name] for name, row in cases.items()}
    if not any(cases.values()):
        raise ArgumentError(f"no case of {', '.join(chosen)} has only={only!r} in its name.")
    return cases


def measure(
    rows: Sequence[str] | None = None,
    out: str | Path = "benchmarks/results",
    *,
    quick: bool = False,
    fresh: bool = False,
    only: str | None = None,
    peers: Sequence[Path] = (),
    effort: Effort | None = None,
    say: Say = lambda text: None,
) -> list[Path]:
    """Measure rows of the suite and write each to a file `ROW.json`.

    A case is kept if its file has it at the same size and with all contenders. A file is written atomically after
    every case, so an interrupted run resumes where it was. If a contender fails, is killed, takes too long or needs too
    much memory, the reason is stored as its result.

    Args:
        rows: names of rows; by default all of `ROWS`.
        out: folder of the files.
        quick: tiny sizes, as a test of the suite.
        fresh: measure stored cases again.
        only: measure only cases whose name contains this.
        peers: clones of published code.
        effort: limits on the time and memory of a case.
        say: called with a line of text for every case.

    Returns:
        The files.

    Raises:
        ArgumentError: a row does not exist, a folder does not hold published code, or there is no case.
        DataError: a file does not hold results of this suite.
        OSError: a file cannot be written.

    Example:
        ```python
        import benchmarks

        benchmarks.measure(["simulation"], "results", only="kepler", say=print)
        ```
    """
    todo = planned(rows, quick=quick, only=only, peers=peers)
    effort = Effort(repeats=2) if quick and effort is None else effort or Effort()
    known = find_peers(list(peers))
    make_folder(Path(out), _results.REMEDY)
    files = []
    for name in todo:
        row, path = ROWS[name], Path(out) / f"{name}.json"
        order = [case.name for case in row.cases(quick, known)]
        stored, untimed = _results.read(path), {}
        if todo[name]:
            files.append(path)
        for case in todo[name]:
            if not fresh and any(_results.serves(old, case) for old in stored if old["name"] == case.name):
                say(f"{name}: {case.name}: kept")
                continue
            say(f"{name}: {case.name} …")
            results = contest(row, case, effort, say)
            if row.untimed is not None:
                key = row.shared(case)
                if key not in untimed:
                    untimed[key] = measure_untimed(row, case, effort)
                for figures in results:
                    figures |= untimed[key].get(figures["contender"], {})
            say("    " + summary(results))
            stored = _results.merged(stored, _results.record(case, results), order)
            _results.write(path, name, stored)
    return files


def summary(results: list[Figures]) -> str:
    """Return the times of a case in one line."""
    return ", ".join(f"{r['contender']} {seconds(r['run_s']) if 'run_s' in r else 'failed'}" for r in results)
