"""The result of `diagnose`, and the nodes at which it probes a system."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._internal._table import Table, Tabled
from ..gradients import AbstractGradient

# So many nodes of the path at most are probed.
_SAMPLES = 8


@dataclass(frozen=True)
class Finding:
    """One property of a system: the measured number or text, and what it means."""

    property: str
    measured: float | str
    verdict: str


@dataclass(frozen=True)
class Diagnosis(Tabled):
    """What `diagnose` found.

    Attributes:
        findings: the measured properties, in the order of the table.
        damping: `"none"`, `"gyroscopic"`, `"mass-proportional"`, `"overdamped"`, `"linear"`, `"varying"`, `"nonlinear"`
            or `"thermal"`.
        rate: the damping rate if the damping is mass-proportional, or `None`.
        mirror: the mirror or twist that the system should declare, a matrix on the flattened coordinates; `None` if it
            needs no other, or none was found.
        gradient: the gradient for `solve`, exact for the system as it stands according to the measurements.
        recommendation: what to do, in a sentence. This may be better than `gradient`.

    Example: see `diagnose`.
    """

    findings: list[Finding] = field(repr=False)
    damping: str
    rate: float | None
    mirror: np.ndarray | None
    gradient: AbstractGradient
    recommendation: str

    def cells(self) -> Table:
        """Return the findings as texts in columns."""
        rows = [
            (x.property, x.measured if isinstance(x.measured, str) else f"{x.measured:.1e}", x.verdict)
            for x in self.findings
        ]
        return Table(("property", "measured", "verdict"), rows, "<><")

    def table(self) -> str:
        """Return the findings as a table in plain text, followed by the recommendation."""
        return f"{self.cells()}\n\n{self.recommendation}"


def sampled_nodes(steps: int) -> Int[Array, " samples"]:
    """Return evenly spaced nodes of a path."""
    return jnp.asarray(np.unique(np.linspace(0, steps, _SAMPLES).astype(np.int32)))
