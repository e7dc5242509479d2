"""Draw docs/images/echo.png: a trajectory, its echo, and the cost of the echo, measured on this machine.

    python scripts/draw_readme.py [--time] [--out docs/images/echo.png]

Left: a star in the Hénon-Heiles potential of a galaxy. Right: memory of the gradient of a running cost with respect to
the springs of a chain of 64 masses, in float64, the same on every machine. With --time also its time: use an idle
machine.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from matplotlib.figure import Figure

import echograd as eg
from echograd import plot
from echograd.workbench.report import measure

STEPS = (1000, 2000, 4000, 8000, 16000, 32000)


class Galaxy(eg.SeparableHamiltonian):
    """M. Hénon and C. Heiles, The Astronomical Journal 69 (1964), 73."""

    def kinetic(self, t: Any, p: Float[Array, "2"]) -> Float[Array, ""]:
        """Return the kinetic energy."""
        return 0.5 * jnp.sum(p**2)

    def potential(self, t: Any, q: Float[Array, "2"], u: Any = None) -> Float[Array, ""]:
        """Return the potential."""
        x, y = q
        return 0.5 * (x**2 + y**2) + x**2 * y - y**3 / 3


class Chain(eg.SeparableHamiltonian):
    """Masses between springs that harden."""

    stiffness: Float[Array, " springs"]

    def kinetic(self, t: Any, p: Float[Array, " masses"]) -> Float[Array, ""]:
        """Return the kinetic energy."""
        return 0.5 * jnp.sum(p**2)

    def potential(self, t: Any, q: Float[Array, " masses"], u: Any) -> Float[Array, ""]:
        """Return the energy of the springs."""
        d = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.stiffness * (d**2 / 2 + d**4 / 4))


def orbits() -> tuple[Array, Array, Array]:
    """Return the nodes of a free run, of its echo, and of an echo that is nudged once, at its start."""

    @jax.jit
    def run(q: Array, p: Array) -> tuple[Array, Array]:
        sol = eg.solve(Galaxy(), eg.InitialValue(q, p), dt=0.02, steps=2200)
        return sol.q, sol.p

    start = jnp.array([0.0, 0.25])
    # The energy is 0.11; stars escape above 1/6.
    along = jnp.sqrt(2 * (0.11 - Galaxy().potential(0.0, start)) - 0.15**2)
    q, p = run(start, jnp.array([along, 0.15]))
    turned = -p[-1]
    push = -0.03 * q[-1] / jnp.linalg.norm(q[-1])
    return q, run(q[-1], turned)[0], run(q[-1], turned + push)[0]


def costs(repeats: int) -> list[plot.CostRow]:
    """Measure gradients by echo and by backprop."""
    masses = 64
    start = eg.InitialValue(0.5 * jnp.sin(jnp.pi * jnp.arange(1, masses + 1) / (masses + 1)), jnp.zeros(masses))

    def loss_of(steps: int) -> Any:
        def loss(chain: Chain, gradient: Any) -> Array:
            sol = eg.solve(
                chain,
                start,
                dt=0.05,
                steps=steps,
                gradient=gradient,
                save=eg.FinalNode(),
                cost=lambda t, q, p: 0.05 * q[-1] ** 2,
            )
            return sol.cost

        return loss

    return measure(loss_of, Chain(jnp.ones(masses + 1)), STEPS, repeats=repeats)


def draw(timed: bool) -> Figure:
    """Return the figure."""
    forward, echo, nudged = orbits()
    rows = costs(51 if timed else 1)
    for row in rows:
        size, seconds = row["bytes"], row["seconds"]
        print(f"{row['gradient']:>9} {row['steps']:6} steps {size / 1e3:10.1f} kB {1e3 * seconds:8.2f} ms")
    fig = Figure(figsize=(9.0, 4.3), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.15, 1])
    axes = left.subplots()
    plot.echo_path(
        axes,
        forward,
        echo,
        nudged,
        potential=lambda x, y: jax.vmap(jax.vmap(lambda x, y: Galaxy().potential(0.0, jnp.stack([x, y]))))(x, y),
        levels=[0.02, 0.05, 0.08, 0.11, 0.14, 1 / 6],
    )
    axes.set_title("A trajectory, its echo, and an echo that was nudged")
    axes.legend(loc="upper left")
    panels = right.subplots(1 + timed, 1, squeeze=False)[:, 0]
    plot.costs(panels[0], rows, "bytes").set_title("Memory of a gradient, besides its inputs")
    if timed:
        plot.costs(panels[1], rows, "seconds").set_title("Time of a gradient")
        panels[0].set_xlabel("")
    panels[-1].set_xlabel("steps of a chain of 64 masses, float64")
    return fig


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", action="store_true", help="also draw the time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "echo.png")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    with plot.style():
        png = plot.png(draw(arguments.time))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(png)
    print(f"{arguments.out}: {len(png) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
