"""Measure exact gradients of lossy systems; write the table of docs/loss.md and draw docs/images/loss.png.

    python scripts/write_loss.py

It takes about a minute. The systems are in scripts/lossy_systems.py.
"""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from lossy_systems import DT, ROWS

import echograd as eg
from echograd import plot
from echograd.friction import Langevin

PAGE = Path(__file__).parents[1] / "docs" / "loss.md"


def bits() -> list[tuple[float, float]]:
    """Return damping per step, and the bits of the record for each momentum and step, of a chain in a heat bath."""
    found: list[tuple[float, float]] = []
    chain = eg.systems.FPUTChain()
    start = eg.InitialValue(*chain.start(n=32))

    def loss(rate: Array) -> Array:
        rule = eg.Rewind(checkpoints=1, bits=1, report=lambda x: found.append((float(rate_now[0] * DT), float(x))))
        damped = eg.Damped(chain, Langevin(rate, 0.01, jax.random.key(0)))
        return jnp.sum(eg.solve(damped, start, dt=DT, steps=20_000, gradient=rule, save=eg.FinalNode()).q ** 2)

    gradient, rate_now = jax.jit(jax.grad(loss)), [0.0]
    for rate_now[0] in np.geomspace(0.05, 3.0, 7):
        jax.block_until_ready(gradient(jnp.asarray(rate_now[0])))
        jax.effects_barrier()
    return found


MEMORY = {
    "Backprop()": (eg.Backprop(), (1024, 8192, 65536)),
    "Rewind(checkpoints=1)": (eg.Rewind(checkpoints=1, bits=1), (1024, 8192, 65536, 524288)),
    "Rewind()": (eg.Rewind(), (1024, 8192, 65536, 524288)),
}


def memory() -> dict[str, tuple[list[int], list[float]]]:
    """Return numbers of steps, and the working memory of a gradient in units of a state, by gradient."""
    chain = eg.systems.FPUTChain()
    start = eg.InitialValue(*chain.start(n=512))
    state = 2 * 512 * 8

    def compiled(rule: Any, steps: int) -> float:
        def loss(rate: Array) -> Array:
            damped = eg.Damped(chain, rate)
            return jnp.sum(eg.solve(damped, start, dt=DT, steps=steps, gradient=rule, save=eg.FinalNode()).q ** 2)

        analysis: Any = jax.jit(jax.grad(loss)).lower(jnp.asarray(0.1)).compile().memory_analysis()
        return analysis.temp_size_in_bytes / state

    return {name: (list(many), [compiled(rule, n) for n in many]) for name, (rule, many) in MEMORY.items()}


# The page and the figure.


def table(measured: list[tuple[float | None, float, float]]) -> str:
    """Return the table of the page."""
    shown = lambda x: "" if x is None else f": **{x:.0e}**"  # noqa: E731
    lines = [
        "| class | exact on the machine | exact in software | control, and its error |",
        "|---|---|---|---|",
    ]
    for row, (machine, software, control) in zip(ROWS, measured, strict=True):
        cells = (
            row.name,
            row.machine + shown(machine),
            row.software + shown(software),
            f"{row.control}: **{control:.2g}**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(measured: list[tuple[float | None, float, float]], taken: Any, sizes: Any) -> bytes:
    """Return the figure as a PNG file."""
    with plot.style() as colours:
        fig, (left, middle, right) = plot.figure(11.5, 3.6, columns=3, width_ratios=[1.25, 1, 1])
        looks = (("machine", colours.echo, "o"), ("software", colours.ink, "s"), ("control", colours.nudge, "X"))
        for i, (name, colour, marker) in enumerate(looks):
            points = [(x[i], -k) for k, x in enumerate(measured) if x[i] is not None]
            left.semilogx(*zip(*points, strict=True), marker, color=colour, label=name, ms=5)
        left.axvline(1e-9, color=colours.muted, ls=":", lw=1)
        left.annotate(
            "tests require", (1e-9, 0.35), (3, 0), textcoords="offset points", color=colours.muted, fontsize=7
        )
        left.set_yticks([-k for k in range(len(ROWS))], [re.sub(r"(.{15}\S*) ", r"\1\n", x.name) for x in ROWS])
        left.set_ylim(-len(ROWS) + 0.5, 0.6)
        left.set_xlim(1e-16, 1e2)
        left.set_xlabel("relative error of the gradient")
        left.set_title("Gradients of lossy systems")
        left.legend(loc="center", bbox_to_anchor=(0.52, 0.5), fontsize=7)
        x, y = np.array(taken).T
        grid = np.geomspace(x.min(), x.max(), 50)
        middle.loglog(x, y, "s", color=colours.ink, label="record of Rewind()")
        middle.loglog(grid, 2 * grid, color=colours.muted, label="2γh")
        middle.loglog(grid, grid / np.log(2), ls=":", color=colours.muted, label="least possible, γh / ln 2")
        middle.set_xlabel("damping in a step, γh")
        middle.set_title("Bits for each momentum and step")
        middle.legend(fontsize=7)
        looks = dict(zip(MEMORY, ((colours.backprop, "o"), (colours.nudge, "D"), (colours.ink, "s")), strict=True))
        for name, (steps, size) in sizes.items():
            right.loglog(steps, size, marker=looks[name][1], color=looks[name][0], label=name)
        right.set_xlabel("steps N")
        right.set_title("Memory of a gradient, in states")
        right.legend(fontsize=7)
        return plot.png(fig)


def main() -> None:
    """Measure, write the table, draw the figure."""
    jax.config.update("jax_enable_x64", True)
    measured = [row.errors() for row in ROWS]
    found = table(measured)
    print(found)
    taken, sizes = bits(), memory()
    print("\n".join(f"γh = {x:.3g}: {y:.3g} bits, {y / x:.2f} γh" for x, y in taken))
    print(
        "\n".join(f"{name} {n} steps: {x:.1f} states" for name, row in sizes.items() for n, x in zip(*row, strict=True))
    )
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"\| class \|(.|\n)*?\n\n", lambda _: found + "\n\n", text, count=1), encoding="utf-8")
    (PAGE.parent / "images" / "loss.png").write_bytes(draw(measured, taken, sizes))


if __name__ == "__main__":
    main()
