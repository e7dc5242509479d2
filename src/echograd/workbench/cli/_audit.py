"""`echograd audit`: measure which boundary conditions and gradients are practical."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro

from echograd import (
    AuditReport,
    Backprop,
    Echo,
    FinalValue,
    FixedEnds,
    Glep,
    InitialValue,
    LinearBoundary,
    MixedEnds,
    Robin,
    SameBoundary,
    Symmetric,
    audit,
    solve,
    systems,
)
from echograd._internal._files import write_atomically

from ._tables import at_least, check_new_file, console, rich_table

Named = Literal[
    "oscillators", "duffing", "fput", "pendulums", "kepler", "double-pendulum", "sine-gordon", "lc-ladder", "charge"
]
# Each entry returns a system, a function that returns its start, and a time step that resolves its motion.
ZOO: dict[str, Any] = {
    "duffing": lambda: (systems.DuffingNetwork(), lambda s: s.start(), 0.1),
    "fput": lambda: (systems.FPUTChain(stiffness=jnp.ones(9), beta=jnp.asarray(0.1)), lambda s: s.start(n=8), 0.1),
    "pendulums": lambda: (systems.PendulumChain(), lambda s: s.start(n=6), 0.03),
    "kepler": lambda: (systems.Kepler(), lambda s: s.start(), 0.05),
    "double-pendulum": lambda: (systems.DoublePendulum(), lambda s: s.start(), 0.02),
    "sine-gordon": lambda: (systems.SineGordon(), lambda s: s.start(n=8), 0.05),
    "lc-ladder": lambda: (systems.LCLadder(), lambda s: s.start(n=6), 0.1),
    "oscillators": lambda: (systems.OscillatorNetwork(), lambda s: s.start(), 0.1),
    "charge": lambda: (systems.ChargedParticle(), lambda s: s.start(), 0.1),
}


@dataclasses.dataclass(frozen=True)
class Audit:
    """Compare learning rules: exactness, passes, memory, time, forward-only or not, local or not.

    Attributes:
        system: name of the system.
        steps: number of steps.
        growth: also measure how passes and memory grow with steps and parameters; takes five times as long.
        precision: precision of all numbers.
        json: file for the result.
    """

    system: Annotated[Named, tyro.conf.Positional] = "oscillators"
    steps: int = 40
    growth: bool = False
    precision: Literal["float32", "float64"] = "float64"
    json: pathlib.Path | None = None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    command = tyro.cli(Audit, args=argv, prog="echograd audit")
    at_least("steps", command.steps, 2)
    check_new_file(command.json)
    with jax.enable_x64(command.precision == "float64"):
        system, start, dt = ZOO[command.system]()
        progress = (lambda text: print(text, file=sys.stderr)) if sys.stderr.isatty() else None
        start = InitialValue(*start(system))
        report = run(system, start, dt, command.steps, growth=command.growth, progress=progress)
    out = console()
    setting = ", ".join(f"{name} {value}" for name, value in report.setting.items())
    out.print(f"\n{setting}\n")
    out.print(rich_table(report.cells()))
    out.print(
        "\npasses: counted runs over the trajectory; per parameter: passes for every further parameter; ~N: exponent "
        "of the growth with the number of steps; touches: the largest number of coordinates in the reading of one "
        "parameter.\n"
    )
    for row in report.rows:
        out.print(f"{row.rule}: {row.why}.")
    if command.json is not None:
        text = report.json() + "\n"
        write_atomically(command.json, lambda file: file.write(text.encode()))
        out.print(f"\nWritten: {command.json}", markup=False, soft_wrap=True)
    return 0


def run(system: Any, start: InitialValue, dt: float, steps: int, **options: Any) -> AuditReport:
    """Audit a system under several boundary conditions. The path from its start satisfies all of them."""
    path = solve(system, start, dt=dt, steps=steps)
    q0, p0, q1, p1 = path.q[0], path.p[0], path.q[-1], path.p[-1]
    n = q0.size
    fall = jnp.tril(jnp.ones((n, n), q0.dtype)) / n
    skew, tame = fall - fall.T + jnp.eye(n, dtype=q0.dtype), fall + fall.T
    doubled = jnp.kron(jnp.asarray([[1.0, 0, -1, 0], [0, 1, 0, -2]], q0.dtype), jnp.eye(n, dtype=q0.dtype))
    ends = jnp.concatenate([q0, p0, q1, p1])
    fixed, mixed, final = FixedEnds(q0, q1), MixedEnds(q0, p1), FinalValue(q1, p1)
    symmetric = Robin(tame, tame, p0 - tame @ q0, p1 - tame @ q1)
    robin = Robin(skew, tame, p0 - skew @ q0, p1 - tame @ q1)
    linear = LinearBoundary(doubled, doubled @ ends)
    rules = {
        "initial value, backprop": (start, Backprop()),
        "initial value, echo": (start, Echo()),
        "initial value, echo ±β": (start, Echo(Symmetric())),
        "initial value, same": (start, SameBoundary()),
        "initial value, same + residual": (start, SameBoundary(correct=True)),
        "final value, dual": (final, Glep()),
        "fixed ends, dual = same": (fixed, Glep()),
        "mixed ends, dual = same": (mixed, Glep()),
        "symmetric Robin, dual = same": (symmetric, Glep()),
        "Robin, dual": (robin, Glep()),
        "Robin, same": (robin, SameBoundary()),
        "q₀ ~ q_N, p₀ ~ 2 p_N, dual": (linear, Glep()),
        "q₀ ~ q_N, p₀ ~ 2 p_N, same": (linear, SameBoundary()),
    }
    return audit(system, rules, dt=dt, steps=steps, guess=path, **options)
