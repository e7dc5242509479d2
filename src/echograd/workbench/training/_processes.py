"""Several processes that train one model: who writes, and where they wait for each other."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from echograd import ArgumentError, RunError


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Make this process one of several that train together. Before anything else is computed.

    Args:
        coordinator: address of process 0, `host:port` with any port that is free there, or `auto` where the cluster
            tells all three (Slurm, Open MPI, TPU).
        processes: how many there are.
        process: number of this one, from 0.

    Raises:
        ValueError: a number is missing or makes no sense.
        RuntimeError: something was computed already, or the others do not come.
    """
    if coordinator == "auto":
        if processes is not None or process is not None:
            raise ArgumentError(
                "coordinator='auto': the cluster tells the processes. Leave --processes and --process out."
            )
        jax.distributed.initialize()
        return
    if processes is None or process is None or not 0 <= process < processes:
        raise ArgumentError(
            f"coordinator={coordinator!r} with processes={processes} and process={process}: each process needs the "
            "number of all (--processes) and its own (--process), from 0 to one less."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ArgumentError(f"coordinator={coordinator!r} is no address of the form host:port.")
    jax.distributed.initialize(coordinator, processes, process)


def is_first() -> bool:
    """Return whether this process is the one that writes and tells."""
    return jax.process_index() == 0


def barrier(where: str) -> None:
    """Wait until all processes have come to this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"echograd: {where}")


def on_first_process(action: Callable[[], object]) -> None:
    """Let the first process do something, and go on when it is done.

    Raises:
        RuntimeError: in the others, if it raised in the first.
    """
    if jax.process_count() == 1:
        action()
        return
    error: BaseException | None = None
    if is_first():
        try:
            action()
        except Exception as raised:
            error = raised
    done = bool(multihost_utils.broadcast_one_to_all(np.asarray(error is None)))
    if error is not None:
        raise error
    if not done:
        raise RunError("Process 0 failed; see its log.")
