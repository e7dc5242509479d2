"""Palindromes of drifts and kicks, stored as data, and the actions of their substeps."""

from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Float, PyTree

from .._internal._errors import ArgumentError
from ._base import StepInputs


class Substep(NamedTuple):
    r"""A drift or a kick: its length and its clock reading, both in units of the step.

    Drifts advance the clock that kicks read, and kicks the clock that drifts read. With this convention every scheme is
    an ordinary splitting of the extended autonomous system $T(\tau, p) + V(\sigma, q) + E_\sigma + E_\tau$. So explicit
    time changes neither the order nor the self-adjointness.
    """

    kind: Literal["drift", "kick"]
    length: float
    clock: float


def palindrome(lengths: tuple[float, ...], first: Literal["drift", "kick"]) -> tuple[Substep, ...]:
    """Return alternating substeps with these lengths.

    Args:
        lengths: a palindrome, in units of the step. The drifts must sum to one step, and so must the kicks.
        first: the kind of the first substep.

    Raises:
        ArgumentError: if the lengths are not a palindrome or do not sum to one step.

    Example:
        ```python
        eg.integrators.palindrome((0.5, 1.0, 0.5), "drift")  # leapfrog
        ```
    """
    if lengths != lengths[::-1]:
        raise ArgumentError(
            f"The lengths {lengths} are not a palindrome, so the step is not its own adjoint and no echo retraces it. "
            "Append the mirrored coefficients."
        )
    kinds: tuple[Literal["drift", "kick"], ...] = ("drift", "kick") if first == "drift" else ("kick", "drift")
    clocks = {"drift": 0.0, "kick": 0.0}
    substeps = []
    for i, length in enumerate(lengths):
        kind, other = kinds[i % 2], kinds[(i + 1) % 2]
        substeps.append(Substep(kind, length, clocks[other]))
        clocks[kind] += length
    for kind, total in clocks.items():
        if abs(total - 1) > 1e-13:
            raise ArgumentError(f"The {kind}s of {lengths} add up to {total}, not to one step.")
    return tuple(substeps)


def drift_action(given: StepInputs, k: Any, p: PyTree, length: Any, clock: Any) -> Float[Array, ""]:
    """Return the contribution of a drift to the discrete action, at its constant momentum."""
    t = given.t0 + (k + clock) * given.h
    return -(length * given.h) * given.system.kinetic(t, p)  # pyright: ignore[reportAttributeAccessIssue]


def kick_action(given: StepInputs, k: Any, q: PyTree, length: Any, clock: Any) -> Float[Array, ""]:
    """Return the contribution of a kick to the discrete action, at its constant position."""
    t = given.t0 + (k + clock) * given.h
    return -(length * given.h) * given.system.potential(t, q, given.u)  # pyright: ignore[reportAttributeAccessIssue]
