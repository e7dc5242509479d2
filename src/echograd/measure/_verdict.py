"""Derive from a learning rule what hardware it needs."""

from typing import NamedTuple

from ..boundary import AbstractBoundary, FinalValue, InitialValue
from ..gradients import AbstractGradient, AbstractNudgedGradient, Reciprocal, Rewind, SameBoundary


class Verdict(NamedTuple):
    """Whether a rule runs forward only, whether it needs nothing but readings, and why."""

    forward_only: bool
    readings_only: bool
    why: str


def verdict(boundary: AbstractBoundary, gradient: AbstractGradient, reversible: bool) -> Verdict:
    """Derive the verdict from the boundary condition, the gradient and the time reversal of the machine."""
    readings = isinstance(gradient, AbstractNudgedGradient | Reciprocal)
    if isinstance(gradient, Reciprocal):
        forward, why = True, "the same lossy machine, started at rest, runs forward on the reversed error"
    elif isinstance(gradient, Rewind):
        forward, why = False, "software only: it keeps the bits that friction destroys, and computes the cotangents"
    elif not readings:
        forward, why = False, "it needs the transposed Jacobian of every step, hence other hardware"
    elif isinstance(gradient, SameBoundary) and gradient.correct:
        readings = False
        forward, why = False, "the residual needs the sensitivity of the end states to every parameter"
    elif isinstance(boundary, InitialValue):
        if isinstance(gradient, SameBoundary):
            forward, why = True, "nudged from the same start, it is causal, but a boundary residual remains"
        elif reversible:
            forward, why = True, "the dual is a final value; time reversal turns it into a forward run, the echo"
        else:
            forward, why = False, "the dual is a final value, and the machine has no time reversal to reach it"
    elif isinstance(boundary, FinalValue):
        forward, why = False, "the free phase itself is anti-causal"
    else:
        forward, why = False, "the condition ties both ends, so the path is relaxed or iterated, not run"
    return Verdict(forward, readings, why)
