"""What a gradient object is: a way of running a problem that says what differentiating it means."""

import abc

import equinox as eqx
import jax

from ..integrators import State
from ._problem import Outcome, Problem


class AbstractGradient(eqx.Module):
    """Runs the free problem; differentiating the result is this object's business."""

    @abc.abstractmethod
    def run(self, problem: Problem, z0: State) -> Outcome:
        """Return the outcome of the initial-value problem from `z0`, differentiable in `problem` and `z0`."""


def constant(gradient: AbstractGradient) -> AbstractGradient:
    """Return the gradient object with its arrays (a nudge's strength) taken as constants: nothing trains them."""
    arrays, static = eqx.partition(gradient, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), static)
