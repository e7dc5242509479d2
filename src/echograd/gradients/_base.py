"""What a gradient object is: a way of running a problem that says what differentiating it means."""

import abc
from typing import TypeVar

import equinox as eqx
import jax

from ..integrators import State
from ._problem import Outcome, Problem

_Gradient = TypeVar("_Gradient", bound=eqx.Module)


class AbstractGradient(eqx.Module):
    """Runs the free problem; differentiating the result is this object's business."""

    @abc.abstractmethod
    def run(self, problem: Problem, z0: State) -> Outcome:
        """Return the outcome of the initial-value problem from `z0`, differentiable in `problem` and `z0`."""


def constant(gradient: _Gradient) -> _Gradient:
    """Return the gradient object with its arrays (a nudge's strength) taken as constants: nothing trains them."""
    arrays, static = eqx.partition(gradient, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), static)
