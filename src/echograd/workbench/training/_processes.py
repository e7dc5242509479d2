"""Several processes and devices that train one model: which process writes, barriers, and shardings."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from echograd import ArgumentError, RunError
from echograd._internal._errors import said


def join(coordinator: str, processes: int | None, process: int | None) -> None:
    """Connect this process to the others that train the same model. Call it before any other computation.

    Args:
        coordinator: address of process 0, `host:port` with any port that is free there; or `auto` if the cluster
            provides all three arguments (Slurm, Open MPI, TPU).
        processes: number of processes.
        process: index of this process, from 0.

    Raises:
        ArgumentError: a number is missing or out of range, or the address is not of the form `host:port`.
        RunError: the connection fails: JAX has already computed something, the other processes do not start, or
            `auto` finds no cluster.
    """
    if coordinator == "auto":
        if processes is not None or process is not None:
            raise ArgumentError(
                "coordinator='auto': the cluster provides these numbers. Leave out --processes and --process."
            )
        _initialize()
        return
    if processes is None or process is None or not 0 <= process < processes:
        raise ArgumentError(
            f"coordinator={coordinator!r} with processes={processes} and process={process}: each process needs the "
            "number of processes (--processes) and its own index (--process), from 0 to that number minus 1."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ArgumentError(f"coordinator={coordinator!r} is not an address of the form host:port.")
    _initialize(coordinator, processes, process)


def _initialize(*arguments: Any) -> None:
    try:
        jax.distributed.initialize(*arguments)
    except (ValueError, RuntimeError) as error:  # without a cluster, without the others, or too late
        raise RunError(
            f"the processes could not be connected: {said(error).removesuffix('.')}. Start every process with the same "
            "coordinator and before any computation; 'auto' needs a cluster that JAX detects (Slurm, Open MPI, TPU)."
        ) from error


def is_first() -> bool:
    """Return whether this is process 0, which alone writes files and prints."""
    return jax.process_index() == 0


def barrier(where: str) -> None:
    """Wait until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"echograd: {where}")


def on_first_process(action: Callable[[], object]) -> None:
    """Run `action` in process 0 while the others wait.

    Raises:
        RunError: in the other processes, if `action` raised in process 0.
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


def shardings(devices: int, batch_size: int) -> tuple[jax.sharding.Sharding | None, jax.sharding.Sharding | None]:
    """Return the sharding of a batch over its cases, and that of parameters; `None` for a single device.

    Args:
        devices: number of devices of every process.
        batch_size: number of cases in a batch.
    """
    there = jax.local_devices()
    if devices > len(there):
        hint = " Lower devices (--devices)."
        if there[0].platform == "cpu":
            hint += f" On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={devices} simulates that many."
        raise ArgumentError(
            f"fit: devices={devices}, but this process has {len(there)} ({there[0].device_kind}).{hint}"
        )
    processes = jax.process_count()
    if batch_size % (processes * devices):
        several = f" in each of {processes} processes" if processes > 1 else ""
        raise ArgumentError(
            f"fit: devices={devices}{several} cannot share batches of {batch_size} cases evenly. Change batch_size to "
            f"a multiple of {processes * devices}."
        )
    if processes * devices == 1:
        return None, None
    chosen = [device for process in range(processes) for device in jax.local_devices(process)[:devices]]
    mesh = jax.sharding.Mesh(np.asarray(chosen), ("cases",))
    spec = jax.sharding.PartitionSpec
    return jax.sharding.NamedSharding(mesh, spec("cases")), jax.sharding.NamedSharding(mesh, spec())
