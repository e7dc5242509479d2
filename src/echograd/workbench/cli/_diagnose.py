"""`echograd diagnose`: measure which gradient is exact for a system, and recommend one."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import tyro

from echograd import ArgumentError, Backprop, InitialValue, diagnose, systems

from ._audit import ZOO, Named
from ._main import FAILED
from ._tables import at_least, console, rich_table


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Measure which gradient is exact for a system: its symmetries, its damping, and how exactly an echo retraces.

    The last line names an exact gradient and recommends what to do. The exit code is 1 if only backpropagation is
    exact.

    Attributes:
        system: name of the system.
        steps: number of steps.
        dt: time step; None chooses one that resolves the system.
        damping: add a damping force of this rate, in proportion to the mass.
        precision: precision of all numbers.
    """

    system: Annotated[Named, tyro.conf.Positional] = "oscillators"
    steps: int = 200
    dt: float | None = None
    damping: float = 0.0
    precision: Literal["float32", "float64"] = "float64"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Diagnose, args=argv, prog="echograd diagnose")
    at_least("steps", command.steps)
    if command.dt is not None and not 0 < command.dt < float("inf"):
        raise ArgumentError(f"dt={command.dt:g}; a time step must be positive and finite.")
    if not 0 <= command.damping < float("inf"):
        raise ArgumentError(f"damping={command.damping:g}; a rate must be at least 0 and finite.")
    with jax.enable_x64(command.precision == "float64"):
        system, start, dt = ZOO[command.system]()
        boundary = InitialValue(*start(system))
        if command.damping:
            if not isinstance(system, systems.SeparableHamiltonian):
                raise ArgumentError(
                    f"damping={command.damping:g}; {command.system} is not separable, and only separable systems can "
                    "be damped. Leave out --damping, or choose another system."
                )
            system = systems.MassDamped(system, command.damping)
        found = diagnose(system, boundary, dt=dt if command.dt is None else command.dt, steps=command.steps)
    out = console()
    out.print(rich_table(found.cells()))
    out.print(f"Exact gradient: {type(found.gradient).__name__}. {found.recommendation}", markup=False, soft_wrap=True)
    return FAILED if isinstance(found.gradient, Backprop) else 0
