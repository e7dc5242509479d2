"""A unit alone, compared with the time to copy its inputs and outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from echograd.gradients import Backprop, Echo
from echograd.nn import LinearHRU, NonlinearHRU

from ._case import Case, Program, Row, compiled
from ._sequence import SHAPES

ABOUT = """
A `LinearHRU` alone at the shapes of the sequence models. Any program must move its inputs and outputs, and for a
gradient also their cotangents. `copy` moves only its input and output, in the same turns, and measures the bandwidth.
Any program must compute the products with the read-in and read-out matrices. `products` computes only these. A gradient
has three and a half times as many: the drive is computed again, and both products are differentiated in both factors.
The last columns are the time relative to each bound.

On a GPU there are also batches 32 times as large, which use all of its cores, and rows for a `NonlinearHRU`, whose loop
over time can be one kernel there.
"""

CONTENDERS = ("copy", "products", "forward", "echo", "backprop")
NONLINEAR = ("copy", "forward", "echo", "backprop", "forward, one kernel", "echo, one kernel")
WIDER = 32


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all shapes."""
    del peers
    found = [
        Case(shape, SHAPES[shape], CONTENDERS, base="copy", dtype="float32", reference="backprop")
        for shape in (("small",) if quick else ("scp1", "worms", "ppg"))
    ]
    if quick or jax.default_backend() == "cpu":
        return found
    for case in (found[0], found[1]):
        sizes = case.sizes | {"batch": WIDER * case.sizes["batch"]}
        # Backprop needs too much memory here, so there is no reference.
        found.append(Case(f"{case.name}, {WIDER} × the batch", sizes, CONTENDERS[:-1], base="copy", dtype="float32"))
        name, sizes = f"{case.name}, nonlinear", case.sizes | {"nonlinear": 1}
        found.append(Case(name, sizes, NONLINEAR, base="copy", dtype="float32", reference="backprop"))
    return found


def build(case: Case, contender: str) -> Program:
    """Compile a unit, its gradient, or a copy."""
    size = case.sizes
    x = jax.random.normal(jax.random.key(1), (size["batch"], size["length"], size["hidden"]))
    moved = 2 * x.nbytes / 1e6
    if contender == "copy":
        program, figures = compiled(lambda x: x + 1, x)
        return Program(lambda: program(x), {**figures, "moved_mb": moved})
    once = {"moved_mb": moved, "products": 1.0}
    gradient = Backprop() if contender == "backprop" else Echo()
    options: Any = {"units": size["units"], "gradient": gradient, "key": jax.random.key(0)}
    if size.get("nonlinear"):
        # Slow oscillators: fast ones with a saturating spring are chaotic over this many steps, so gradients are wrong.
        options |= {"angles": (0.001, 0.02), "kernel": contender.endswith("one kernel")}
        unit = NonlinearHRU(size["hidden"], size["hidden"], **options)
    else:
        unit = LinearHRU(size["hidden"], size["hidden"], **options)
    if contender == "products":
        factors = unit.projections.read_out, unit.projections.read_in, x.reshape(-1, size["hidden"]).T
        program, figures = compiled(lambda out, into, x: out @ jax.lax.optimization_barrier(into @ x), *factors)
        return Program(lambda: program(*factors), {**figures, **once})
    if contender.startswith("forward"):
        program, figures = compiled(lambda unit, x: unit(x), unit, x)
        return Program(lambda: program(unit, x), {**figures, **once})
    bar = jnp.ones_like(x)

    def pulled(unit: Any, x: Any, bar: Any) -> Any:
        y, pull = eqx.filter_vjp(lambda unit, x: unit(x), unit, x)
        return y, pull(bar)

    program, figures = compiled(pulled, unit, x, bar)
    figures = {**figures, "moved_mb": 2 * moved, "products": 3.5}
    return Program(lambda: program(unit, x, bar), figures, lambda found: {"gradient": found[1]})


ROW = Row("unit", "The units against the memory bandwidth", ABOUT, cases, build)
