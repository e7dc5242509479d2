"""`echograd diagnose`: measure what the exactness of a gradient rests on, and recommend one."""

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
    """Measure what the exactness of a gradient rests on: symmetries, damping, and how exactly an echo retraces.

    Below the findings stands the gradient that is exact for the system as it is, and what to do. The exit code is 1 if
    no gradient but backpropagation is.

    Attributes:
        system: which system of the zoo.
        steps: number of steps.
        dt: length of a step; None: one that resolves the system.
        damping: rate of a damping in proportion to the mass, to be put on the system.
        precision: of all numbers.
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
        raise ArgumentError(f"dt={command.dt:g}: a step is positive and finite.")
    if not 0 <= command.damping < float("inf"):
        raise ArgumentError(f"damping={command.damping:g}: a rate is zero or positive, and finite.")
    with jax.enable_x64(command.precision == "float64"):
        system, start, dt = ZOO[command.system]()
        boundary = InitialValue(*start(system))
        if command.damping:
            if not isinstance(system, systems.SeparableHamiltonian):
                raise ArgumentError(f"damping={command.damping:g}: {command.system} is not separable, as it must be.")
            system = systems.MassDamped(system, command.damping)
        found = diagnose(system, boundary, dt=dt if command.dt is None else command.dt, steps=command.steps)
    out = console()
    out.print(rich_table(found.cells()))
    out.print(f"Exact for it: {type(found.gradient).__name__}. {found.recommendation}", markup=False, soft_wrap=True)
    return FAILED if isinstance(found.gradient, Backprop) else 0
