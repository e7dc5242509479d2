"""A process that holds one contender and runs it on request: `python -m benchmarks._worker`.

It prints a line when it is ready, reads a task (one line of JSON) and answers with one line. Then it runs once for
every input line. The answer to a failure is `{"failed": "..."}`.
"""

import contextlib
import importlib
import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ._case import Case, Program, Row, complaint

# A measurement lasts at least this many seconds: faster programs are called several times, as in a training loop.
_SHORTEST = 0.5

# A process is idle if it uses less than a tenth of this time, in seconds.
_WHILE = 0.02

_compilations: list[str] = []


def main() -> None:
    """Answer until the input ends."""
    # Other output (of published code, for example) goes to stderr, so it cannot mix with the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # prefer this process for the OOM killer
    print("{}", file=channel, flush=True)
    try:
        for answer in answers(json.loads(sys.stdin.readline()), sys.stdin):
            print(json.dumps(answer), file=channel, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"failed": complaint(error)}), file=channel, flush=True)


def answers(task: dict[str, Any], requests: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the answers to a task and to the requests that follow it."""
    row, case = importlib.import_module(task["module"]).ROW, Case(**task["case"])
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    if task["contender"] is None:
        assert row.untimed is not None
        yield row.untimed(case)
        return
    yield from compete(row, case, task, requests)


def compete(row: Row, case: Case, task: dict[str, Any], requests: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of a contender after its first run, and then those of every further run."""
    jax.monitoring.register_event_duration_secs_listener(_count_compilations)
    program = row.build(case, task["contender"])
    needed = program.figures.get("temporary_mb") or 0.0
    if needed > task["limit_mb"]:
        yield {**program.figures, "failed": f"needs {needed:,.0f} MB, more than the limit of {task['limit_mb']:,.0f}"}
        return
    first, found = _timed(program.run)
    if task["results"] and program.result is not None:
        things = {key: jax.tree.leaves(thing) for key, thing in program.result(found).items()}
        arrays: Any = {f"{key} {i}": np.asarray(x) for key in things for i, x in enumerate(things[key])}
        np.savez(task["results"], **arrays)
    del found
    calls = max(1, min(100, int(_SHORTEST / first)))
    yield program.figures
    for _ in requests:
        figures = measured(program, calls)
        rest()
        yield figures


def measured(program: Program, calls: int) -> dict[str, Any]:
    """Return the figures of one measurement."""
    before, busy, start = len(_compilations), time.process_time(), time.perf_counter()
    found, waits = None, jax.default_backend() == "cpu"
    for _ in range(calls):
        # On an accelerator, calls are launched without waiting, so the launch time is not counted.
        found = jax.block_until_ready(program.run()) if waits else program.run()
    jax.block_until_ready(found)
    seconds, busy = (time.perf_counter() - start) / calls, (time.process_time() - busy) / calls
    for leaf in jax.tree.leaves(found):
        if np.ndim(leaf) == 0 and not math.isfinite(float(leaf)):
            raise FloatingPointError(f"the result is {float(leaf)}")
    again = len(_compilations) - before
    return {"run_s": seconds, "processor_s": busy, "resident_mb": _resident(), "recompiled": again}


def rest(patience: float = 5.0) -> None:
    """Wait until this process is idle, at most `patience` seconds.

    Releasing gigabytes takes a good part of a second after the result is returned, and would slow down the next
    contender.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        busy = time.process_time()
        time.sleep(_WHILE)
        if time.process_time() - busy < 0.1 * _WHILE:
            return


def _count_compilations(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compilations.append(event)


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = jax.block_until_ready(run())
    return time.perf_counter() - start, found


def _resident() -> float:
    """Return the largest resident set of this process so far, in MB."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        # The value of getrusage includes the size of the process that this one was forked from.
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1.024e-3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1.024e-3


if __name__ == "__main__":
    main()
