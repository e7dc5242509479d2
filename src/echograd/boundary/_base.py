"""What the ends of a trajectory are held to."""

import equinox as eqx


class AbstractBoundary(eqx.Module):
    """A condition on the ends $(q_0, p_0, q_N, p_N)$ of a trajectory."""
