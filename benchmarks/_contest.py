"""A contest: contenders in separate processes take turns."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from echograd import ArgumentError
from echograd._internal._format import physical_memory

from ._case import Case, Row

Figures = dict[str, Any]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Effort:
    """Limits on the time and memory of a case.

    Attributes:
        repeats: number of rounds; every contender runs once a round.
        seconds: no further round begins after this many seconds; three rounds are always made.
        limit_mb: a contender that needs more temporary memory (in MB) is not run; by default 60 % of the memory of the
            machine.
        patience: a contender that takes more seconds to compile and run once, or for a run, is given up.

    Raises:
        ArgumentError: a number is not positive.
    """

    repeats: int = 7
    seconds: float = 30.0
    limit_mb: float = dataclasses.field(default_factory=lambda: 0.6e-6 * (physical_memory() or 16e9))
    patience: float = 180.0

    def __post_init__(self) -> None:
        if self.repeats < 1 or not all(limit > 0 for limit in (self.seconds, self.limit_mb, self.patience)):
            raise ArgumentError(f"{self}: repeats must be at least 1, and all limits must be positive.")


class Contender:
    """A process that holds one program and runs it on request.

    Its peak memory is measured separately. It can fail, hang or be killed without effect on the others.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # In a new session it does not get Ctrl-C; this process gets it and ends the contenders.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            start_new_session=True,
            # By default, JAX allocates most of the memory of a GPU for one process.
            env={
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )

    def begin(self, row: Row, case: Case, name: str | None, limit_mb: float = 0.0, results: Path | None = None) -> None:
        """Send the task."""
        module = row.build.__module__  # this module has the row as `ROW`
        task = {"module": module, "case": dataclasses.asdict(case), "contender": name, "limit_mb": limit_mb}
        self.request(json.dumps({**task, "results": None if results is None else str(results)}))

    def request(self, line: str = "") -> None:
        """Request one more run."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process is dead; `answer` reports it
            print(line, file=self.process.stdin, flush=True)

    def answer(self) -> Figures:
        """Return the next answer, or the reason of a failure."""
        assert self.process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(self.patience, give_up)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if line:
            return json.loads(line)
        code = self.process.wait()
        if late.is_set():
            return {"failed": f"took longer than {self.patience:g} s"}
        if code == -9:
            return {"failed": "was killed, probably out of memory"}
        self.complaints.seek(0)
        said = self.complaints.read().strip().splitlines()
        return {"failed": f"ended with code {code}: {said[-1][:200] if said else 'no output'}"}

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.complaints):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def closing(contenders: list[Contender]) -> Iterator[None]:
    """End all processes at the end of a block."""
    try:
        yield
    finally:
        for one in contenders:
            one.close()


def measure_untimed(row: Row, case: Case, effort: Effort) -> dict[str, Figures]:
    """Return the untimed figures of all contenders of a case, measured in a separate process."""
    one = Contender(effort.patience)
    with closing([one]):
        found = one.answer()
        if "failed" not in found:
            one.begin(row, case, None)
            found = one.answer()
    if "failed" in found:
        return {name: {"agreement_failed": found["failed"]} for name in case.contenders}
    return found


def contest(row: Row, case: Case, effort: Effort, say: Say) -> list[Figures]:
    """Return the figures of all contenders. They compile one after the other, then run in turns."""
    found: dict[str, Figures] = {}
    contenders: list[Contender] = []
    with tempfile.TemporaryDirectory() as folder, closing(contenders):
        running: dict[str, Contender] = {}
        results = {name: Path(folder) / f"{i}.npz" for i, name in enumerate(case.contenders)}
        contenders += [Contender(effort.patience) for _ in case.contenders]
        # Wait until all have started, so no other process is busy during a compilation.
        started = {name: one.answer() for name, one in zip(case.contenders, contenders, strict=True)}
        for name, one in zip(case.contenders, contenders, strict=True):
            found[name] = started[name]
            if "failed" not in started[name]:
                one.begin(row, case, name, effort.limit_mb, results[name] if case.reference else None)
                found[name] = one.answer()
            if "failed" in found[name]:
                say(f"    {name}: {found[name]['failed']}")
                one.close()
            else:
                running[name] = one
        measured = take_turns(running, found, effort)
        for name, runs in measured.items():
            found[name] |= medians(runs)
        if case.reference is not None:
            disagreements(results, case.reference, found)
    base = found[case.base]
    for figures in found.values():
        if "run_s" in figures and "run_s" in base:
            figures["ratio"] = figures["run_s"] / base["run_s"]
            figures["processor_ratio"] = figures["processor_s"] / base["processor_s"]
    return [{"contender": name, **found[name]} for name in case.contenders]


def take_turns(running: dict[str, Contender], found: dict[str, Figures], effort: Effort) -> dict[str, list[Figures]]:
    """Let the contenders run in turns, and return their measurements. A contender that fails is removed."""
    measured: dict[str, list[Figures]] = {name: [] for name in running}
    begun = time.monotonic()
    for i in range(effort.repeats):
        if i >= min(3, effort.repeats) and time.monotonic() - begun > effort.seconds:
            break
        for name, one in list(running.items()):
            one.request()
            answer = one.answer()
            if "failed" in answer:
                found[name] |= answer
                del running[name]
            else:
                measured[name].append(answer)
    return {name: measured[name] for name in running}


def medians(runs: list[Figures]) -> Figures:
    """Return the figures of a contender, with the median time of its runs."""
    return {
        "run_s": statistics.median(run["run_s"] for run in runs),
        "processor_s": statistics.median(run["processor_s"] for run in runs),
        "resident_mb": runs[-1]["resident_mb"],
        "recompiled": sum(run["recompiled"] for run in runs),
        "all_s": [run["run_s"] for run in runs],
    }


def disagreements(results: dict[str, Path], reference: str, found: dict[str, Figures]) -> None:
    """Store the relative error of the first result of every contender against the reference, of the worst array."""
    expected = _load(results[reference])
    for name, path in results.items():
        errors: dict[str, float] = {}
        for key, x in _load(path).items():
            if name != reference and key in expected and np.any(expected[key]):
                thing, y = key.rpartition(" ")[0], expected[key]
                errors[thing] = max(errors.get(thing, 0.0), float(np.linalg.norm(x - y) / np.linalg.norm(y)))
        for thing, error in errors.items():
            found[name]["error" if thing == "gradient" else f"{thing}_error"] = error
            found[name]["error_against"] = reference


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file.items())
