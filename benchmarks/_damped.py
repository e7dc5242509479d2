"""Damped units beside undamped ones, and beside published code."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from echograd.nn import DampedHRU, LinearHRU

from . import _sequence
from ._case import Case, Program, Row, compiled
from ._sequence import SHAPES

ABOUT = """
Damped oscillators, `HSSM(unit="damped")`, with gradients by `Reciprocal()`: one training step at the shapes of the
sequence models, beside the same model of undamped oscillators (`linear`, gradients by echoes), and beside
backpropagation through the damped model. Published code comes from clones given by `--peer`: LinOSS (IMEX, BPTT) of
github.com/tk-rusch/linoss, and D-LinOSS (DampedIMEX1, BPTT) of github.com/jaredbmit/damped-linoss; the figures below
are of a copy of its file with this layer only. Cases *unit alone* are the gradient of a `DampedHRU` and of a
`LinearHRU` in parameters and inputs. Errors are measured in float64 at the full length, with two examples and two
blocks, relative to backpropagation through the same model.
"""


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all shapes, of training steps and of a unit alone."""
    contenders = ("damped", "linear", "damped, backprop", *_sequence.published_of(peers, "linoss", "damped-linoss"))
    found = []
    for shape in ("small",) if quick else ("scp1", "worms", "ppg"):
        sizes: dict[str, Any] = SHAPES[shape]
        found.append(Case(shape, sizes, contenders, base="damped", dtype="float32", peers=peers))
        alone = f"{shape}, unit alone"
        found.append(Case(alone, sizes | {"alone": 1}, ("damped", "linear"), base="damped", dtype="float32"))
    return found


def build(case: Case, contender: str) -> Program:
    """Compile a training step, or the gradient of a unit."""
    size = case.sizes
    if not size.get("alone"):
        return _sequence.build(case, contender)
    make = DampedHRU if contender == "damped" else LinearHRU
    unit = make(size["hidden"], size["hidden"], units=size["units"], key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (size["batch"], size["length"], size["hidden"]))
    bar = jnp.ones_like(x)

    def pulled(unit: Any, x: Any, bar: Any) -> Any:
        y, pull = eqx.filter_vjp(lambda unit, x: unit(x), unit, x)
        return y, pull(bar)

    program, figures = compiled(pulled, unit, x, bar)
    return Program(lambda: program(unit, x, bar), figures)


def measure_errors(case: Case) -> dict[str, dict[str, Any]]:
    """Return the errors of gradients relative to backpropagation, in float64."""
    return {} if case.sizes.get("alone") else _sequence.measure_errors(case)


ROW = Row("damped", "Damped units", ABOUT, cases, build, measure_errors)
