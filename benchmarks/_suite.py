"""Running the suite: what is measured already stays, what is missing is measured, and every case is written at once."""

from collections.abc import Sequence
from pathlib import Path

from echograd import ArgumentError
from echograd._internal._files import make_folder
from echograd._internal._format import seconds

from . import _results
from ._case import Case
from ._contest import Effort, Figures, Say, apart, contest
from ._rows import ROWS
from ._sequence import find_peers


def planned(
    rows: Sequence[str] | None = None, *, quick: bool = False, only: str | None = None, peers: Sequence[Path] = ()
) -> dict[str, list[Case]]:
    """Return the cases of every row that `measure` would measure, were nothing measured yet.

    Args:
        rows: names; by default all of them, `ROWS`.
        quick: tiny sizes.
        only: leave out cases whose name does not contain this.
        peers: clones of published code.

    Returns:
        Cases by the name of their row.

    Raises:
        ValueError: for a row that does not exist, a folder without published code, or if there is no case.

    Example:
        ```python
        from echograd import bench

        bench.planned(["simulation"], only="fput")["simulation"][0].contenders
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
        raise ArgumentError(f"no case of {', '.join(chosen)} has {only!r} in its name.")
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
    """Measure rows of the suite and write them to files, `ROW.json` each.

    A case that is in its file already, at the same size and with at least as many contenders, is kept. A file is
    written anew, atomically, after every case, so that a run can be broken off at any time and goes on where it was.
    A contender that fails, is killed, takes too long or needs too much memory is a result that says so.

    Args:
        rows: names; by default all of them, `ROWS`.
        out: folder of the files.
        quick: tiny sizes, to see that everything works.
        fresh: measure also what is there.
        only: measure only cases whose name contains this.
        peers: clones of published code.
        effort: how much is spent on a case.
        say: told what goes on.

    Returns:
        The files.

    Raises:
        ValueError: for a row that does not exist, a folder without published code, a file that holds something else, or
            if no case is asked for.
        OSError: it cannot be written there.

    Example:
        ```python
        from echograd import bench

        bench.measure(["simulation"], "results", only="kepler", say=print)
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
        stored, found_apart = _results.read(path), {}
        if todo[name]:
            files.append(path)
        for case in todo[name]:
            if not fresh and any(_results.serves(old, case) for old in stored if old["name"] == case.name):
                say(f"{name}: {case.name}: kept")
                continue
            say(f"{name}: {case.name} …")
            results = contest(row, case, effort, say)
            if row.apart is not None:
                key = row.shared(case)
                if key not in found_apart:
                    found_apart[key] = apart(row, case, effort)
                for figures in results:
                    figures |= found_apart[key].get(figures["contender"], {})
            say("    " + summary(results))
            stored = _results.merged(stored, _results.record(case, results), order)
            _results.write(path, name, stored)
    return files


def summary(results: list[Figures]) -> str:
    """Return the times of a case in one line."""
    return ", ".join(f"{r['contender']} {seconds(r['run_s']) if 'run_s' in r else 'failed'}" for r in results)
