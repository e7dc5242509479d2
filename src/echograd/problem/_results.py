"""Whether a run is sound: the answer, and what is measured for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._internal._errors import refuse_if


class RESULTS(eqx.Enumeration):
    """Whether a run is sound, and why not: the values of `Trajectory.result`.

    Example:
        ```python
        qs = jnp.stack([q, 100 * q])
        run = jax.vmap(lambda q: eg.solve(system, eg.InitialValue(q, p), dt=0.1, steps=100, throw=False))
        failed = run(qs).result != eg.RESULTS.successful  # one flag per member of the batch
        ```
    """

    successful = ""
    coarse_clock = "The times of the run have too few digits for dt. Start nearer to t0 = 0, or use float64."
    unstable_step = "The step is unstable for the fastest oscillation about the initial state. Shorten dt."
    not_finite = "The trajectory is not finite at its end. Halve dt, or look for a NaN in the arguments."
    blown_up = "The energy of an autonomous system grew by orders of magnitude. Halve dt."
    no_path = "Newton's method found no path that meets the boundary condition. Give a better guess."
    conjugate_point = "The path ends at a conjugate point, so it is not unique and has no gradient."


class Finding(NamedTuple):
    """What a check of a run found."""

    result: Any  # what is wrong, a member of `RESULTS`
    wrong: Bool[Array, ""]
    message: str = ""  # with `{}` for the measured number
    measured: Float[Array, ""] | None = None  # the number that was compared with a limit


def raise_first(x: Any, findings: Sequence[Finding]) -> Any:
    """Return `x`, or raise at run time for the first finding that is wrong."""
    for finding in findings:
        if finding.measured is None:
            x = eqx.error_if(x, finding.wrong, finding.message)
        else:
            x = refuse_if(x, finding.wrong, finding.message, finding.measured)
    return x


def result_of(findings: Sequence[Finding]) -> Any:
    """Return the result of the first finding that is wrong, or `RESULTS.successful`."""
    result = RESULTS.successful
    for finding in reversed(findings):
        result = RESULTS.where(jnp.asarray(finding.wrong), finding.result, result)
    return result
