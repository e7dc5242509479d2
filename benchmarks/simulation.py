"""Gradients of long simulations: time, memory and error of the echo, of backprop, and of what others offer.

    python benchmarks/simulation.py [--system fput ...] [--steps 1000 100000 ...] [--dtype float32]
                                    [--repeats 5] [--out FILE.json]

What is differentiated is a running cost, the sum of all squared coordinates at all nodes, with respect to every
parameter of a system of `echograd.systems`. `forward` is the same run without a gradient, and
"passes" are times over its time. Hand-written contenders are
what one would write in plain JAX; diffrax runs its semi-implicit Euler method (one force per step, like leapfrog) and,
for `BacksolveAdjoint`, which refuses that one, Heun's method (two per step).

Every contender compiles and runs in a process of its own, so that peak resident memory is its own; the processes take
turns, so that all see the same machine. Reported: compilation (tracing included), medians of wall-clock and of
processor time, compiled temporary memory, peak resident memory, and the error of the gradient after 1000 steps against
backprop through the same discrete map in float64. What would need more temporary memory than `--limit` is not run.
"""

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORWARD = "forward"
CONTENDERS = {
    FORWARD: "leapfrog",
    "echo": "leapfrog",
    "backprop": "leapfrog",
    "backprop, checkpointed": "leapfrog",
    "lax.scan by hand": "leapfrog",
    "lax.scan by hand, checkpointed": "leapfrog",
    "diffrax RecursiveCheckpointAdjoint": "semi-implicit Euler",
    "diffrax BacksolveAdjoint": "Heun",
}
# The maps, each with a contender that differentiates it exactly.
REFERENCES = {
    "leapfrog": "lax.scan by hand",
    "semi-implicit Euler": "diffrax RecursiveCheckpointAdjoint",
    "Heun": "diffrax RecursiveCheckpointAdjoint, Heun",
}
STEPS = {
    "fput": (1_000, 10_000, 100_000),
    "pendulums": (1_000, 10_000, 100_000),
    "kepler": (1_000, 10_000, 100_000, 1_000_000),
    "nbody": (1_000, 10_000),
    "wave": (100, 1_000),
}
CHECKED = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--steps", nargs="+", type=int, help="numbers of steps; by default suited to the system")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=4.0, help="temporary memory in GB above which nothing is run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--references", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return

    rows = []
    for system in arguments.system:
        with tempfile.TemporaryDirectory() as folder:
            for scheme in dict.fromkeys(CONTENDERS[name] for name in arguments.contender):
                with Worker(arguments, "reference " + scheme, system, CHECKED, folder) as one:
                    one.read()
            for steps in arguments.steps or STEPS[system]:
                rows += compete(arguments, system, steps, folder)
                print(render([r for r in rows if (r["system"], r["steps"]) == (system, steps)]) + "\n", flush=True)
                if arguments.out:
                    arguments.out.parent.mkdir(parents=True, exist_ok=True)
                    arguments.out.write_text(json.dumps({"machine": machine(arguments), "rows": rows}, indent=1) + "\n")


class Worker:
    """A process that holds one compiled contender and runs it on demand."""

    def __init__(self, arguments: argparse.Namespace, name: str, system: str, steps: int, folder: str) -> None:
        command = [sys.executable, __file__, "--worker", name, "--system", system, "--steps", str(steps)]
        command += ["--dtype", arguments.dtype, "--references", folder, "--limit", str(arguments.limit)]
        self.name, self.row = name, None
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def read(self) -> dict:
        """Return the next answer, or what went wrong."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": self.process.stderr.read()[-2000:]}

    def run(self) -> dict:
        """Return the figures of one more run."""
        print(file=self.process.stdin, flush=True)
        return self.read()


def compete(arguments: argparse.Namespace, system: str, steps: int, folder: str) -> list[dict]:
    """Return a row for every contender: compiled one after the other, then run in turns."""
    workers = []
    for name in arguments.contender:
        one = Worker(arguments, name, system, steps, folder)
        one.row = {"system": system, "steps": steps, "contender": name, "scheme": CONTENDERS[name], **one.read()}
        workers.append(one)
    running = [one for one in workers if "failed" not in one.row and not one.row["too_large"]]
    times = {one.name: [] for one in running}
    for _ in range(arguments.repeats):
        for one in list(running):
            answer = one.run()
            if "failed" in answer:
                one.row.update(answer)
                running.remove(one)
            else:
                times[one.name].append(answer)
    for one in workers:
        seen = times.get(one.name)
        if seen:
            one.row.update(
                run_s=statistics.median(x["wall_s"] for x in seen),
                processor_s=statistics.median(x["processor_s"] for x in seen),
                peak_mb=seen[-1]["peak_mb"],
                all_s=[x["wall_s"] for x in seen],
            )
        with one:
            pass
    forward = next((one.row for one in workers if one.name == FORWARD), {})
    for one in workers:
        if "run_s" in one.row and "run_s" in forward:
            one.row["passes"] = one.row["run_s"] / forward["run_s"]
            one.row["processor_passes"] = one.row["processor_s"] / forward["processor_s"]
    return [one.row for one in workers]


def render(rows: list[dict]) -> str:
    lines = [
        "| system | steps | contender | compile s | run s | passes | processor passes | temporary MB | peak MB "
        "| error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]

    def number(row: dict, key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else "-"

    for r in rows:
        cells = [
            *(r["system"], f"{r['steps']:,}", r["contender"]),
            *(number(r, "compile_s", ".1f"), number(r, "run_s", ".3g"), number(r, "passes", ".2f")),
            *(number(r, "processor_passes", ".2f"), number(r, "temporary_mb", ".3g"), number(r, "peak_mb", ".0f")),
            number(r, "error", ".0e"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine(arguments: argparse.Namespace) -> dict:
    from importlib.metadata import version

    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "equinox", "diffrax", "echograd")},
        "dtype": arguments.dtype,
        "sizes": "fput and pendulums: 256 masses; kepler: 1 body; nbody: 64 bodies; wave: 256 x 256",
    }


def worker(arguments: argparse.Namespace) -> None:
    """Compile one contender and say what that took; then run it for every line that comes in."""
    import jax
    import numpy as np

    kind, _, scheme = arguments.worker.partition("reference ")
    name = REFERENCES[scheme] if scheme else arguments.worker
    jax.config.update("jax_enable_x64", bool(scheme) or arguments.dtype == "float64")
    system, z0, dt = problem(arguments.system[0])
    where = arguments.references / f"{scheme or CONTENDERS[name]}.npz"
    if scheme:
        np.savez(where, *jax.tree.leaves(jax.jit(gradient(name, dt, CHECKED))(system, z0)[1]))
        print("{}")
        return

    error = None
    if kind != FORWARD:
        found = jax.tree.leaves(jax.jit(gradient(name, dt, CHECKED))(system, z0)[1])
        expected = list(np.load(where).values())
        error = max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(found, expected, strict=True))
    steps = arguments.steps[0]
    start = time.perf_counter()
    compiled = jax.jit(gradient(name, dt, steps)).lower(system, z0).compile()
    compile_s = time.perf_counter() - start
    temporary_mb = compiled.memory_analysis().temp_size_in_bytes / 1e6
    too_large = temporary_mb > 1e3 * arguments.limit
    if not too_large:
        jax.block_until_ready(compiled(system, z0))
    answer = {"compile_s": compile_s, "temporary_mb": temporary_mb, "error": error, "too_large": too_large}
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        value = jax.block_until_ready(compiled(system, z0))
        answer = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        answer["value"] = float(value[0])
        if not math.isfinite(answer["value"]):
            raise FloatingPointError(f"{name}: the cost is {value[0]}")
        print(json.dumps(answer), flush=True)


def problem(name: str) -> tuple:
    """Return a system with parameters for every site, a start, and a step."""
    import jax.numpy as jnp

    from echograd import systems

    n = 256
    if name == "fput":
        bonds = jnp.ones(n + 1)
        system = systems.FPUTChain(jnp.ones(n), bonds, 0.25 * bonds, 0.1 * bonds)
        return system, system.start(n), 0.1
    if name == "pendulums":
        system = systems.PendulumChain(jnp.ones(n), jnp.ones(n), 10 * jnp.ones(n - 1))
        return system, system.start(n), 0.02
    if name == "kepler":
        return systems.Kepler(), systems.Kepler().start(), 0.01
    if name == "nbody":
        return systems.NBody(), systems.NBody().start(), 0.01
    return systems.WaveField(), systems.WaveField().start(), 0.3


def gradient(name: str, dt: float, steps: int) -> object:
    """Return the function of system and start that a contender compiles: cost and gradient."""
    import jax

    run = {
        "lax.scan by hand": by_hand,
        "lax.scan by hand, checkpointed": by_hand,
        "diffrax RecursiveCheckpointAdjoint": by_diffrax,
        "diffrax RecursiveCheckpointAdjoint, Heun": by_diffrax,
        "diffrax BacksolveAdjoint": by_diffrax,
    }.get(name, by_echograd)

    def value(system, z0):
        return run(name, system, z0, dt, steps)

    return (lambda system, z0: (value(system, z0),)) if name == FORWARD else jax.value_and_grad(value)


def square(q):
    import jax.numpy as jnp

    return jnp.sum(q**2)


def by_echograd(name, system, z0, dt, steps):
    import echograd as eg

    gradients = {"backprop": eg.Backprop(), "backprop, checkpointed": eg.Backprop(checkpoints=math.isqrt(steps))}
    sol = eg.solve(
        system,
        eg.InitialValue(*z0),
        dt=dt,
        steps=steps,
        gradient=gradients.get(name, eg.Echo()),
        save=eg.FinalNode(),
        cost=lambda t, q, p: square(q),
    )
    return sol.cost


def by_hand(name, system, z0, dt, steps):
    """Leapfrog as one would write it."""
    import jax
    import jax.numpy as jnp

    def step(carry, _):
        q, p, cost = carry
        q = q + 0.5 * dt * jax.grad(lambda p: system.kinetic(0.0, p))(p)
        p = p - dt * jax.grad(lambda q: system.potential(0.0, q, None))(q)
        q = q + 0.5 * dt * jax.grad(lambda p: system.kinetic(0.0, p))(p)
        return (q, p, cost + square(q)), None

    carry = (*z0, square(z0[0]))
    if not name.endswith("checkpointed"):
        return jax.lax.scan(step, carry, None, length=steps)[0][2]
    inner = math.isqrt(steps)
    outer, rest = divmod(steps, inner)
    segment = jax.checkpoint(lambda carry, _: jax.lax.scan(step, carry, None, length=inner))
    carry, _ = jax.lax.scan(lambda carry, x: (segment(carry, x)[0], None), carry, jnp.zeros(outer))
    return jax.lax.scan(step, carry, None, length=rest)[0][2]


def by_diffrax(name, system, z0, dt, steps):
    """The running cost is one more component of the state."""
    import diffrax
    import jax
    import jax.numpy as jnp

    def drift(t, y, system):
        return jax.grad(lambda p: system.kinetic(t, p))(y[0]), jnp.zeros(())

    def kick(t, y, system):
        return -jax.grad(lambda q: system.potential(t, q, None))(y[0]), square(y[0]) / dt

    def flow(t, y, system):
        return drift(t, y[1], system), kick(t, y[0], system)

    adjoint = diffrax.RecursiveCheckpointAdjoint()
    terms, solver = (diffrax.ODETerm(drift), diffrax.ODETerm(kick)), diffrax.SemiImplicitEuler()
    if name.endswith(("Heun", "BacksolveAdjoint")):
        terms, solver = diffrax.ODETerm(flow), diffrax.Heun()
    if name.endswith("BacksolveAdjoint"):
        adjoint = diffrax.BacksolveAdjoint(solver=diffrax.Heun())
    q, p = z0
    # Both halves of the state have to be alike: the coordinates get an idle component beside the cost.
    start = ((q, jnp.zeros(())), (p, square(q)))
    sol = diffrax.diffeqsolve(
        terms, solver, 0.0, steps * dt, dt, start, args=system, adjoint=adjoint, max_steps=steps + 1
    )
    return sol.ys[1][1][-1]


if __name__ == "__main__":
    main()
