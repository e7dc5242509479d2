"""The equivalence of GLEP and Hamiltonian echo learning: one gradient from two independent calculations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError
from .._internal._root import root
from .._internal._table import Table, Tabled
from .._solve import solve
from ..boundary import InitialValue
from ..gradients import Echo
from ..integrators import AbstractIntegrator, ImplicitMidpoint, State, VelocityVerlet
from ..problem import FinalNode
from ..systems import Hamiltonian, Lagrangian, SeparableHamiltonian, legendre
from ._compare import compare_parameters

Scheme = Literal["midpoint", "trapezoid"]


@dataclasses.dataclass(frozen=True)
class EquivalenceRow:
    """The difference of the two calculations for one system, scheme, kind of cost and parameter.

    Attributes:
        system: name of the system.
        scheme: the discrete Lagrangian, which determines the integrator.
        cost: `"running"` (RHEL) or `"terminal"` (HEB).
        parameter: path of the parameter.
        difference: relative difference of the two gradients.
        norm: norm of the gradient.
    """

    system: str
    scheme: str
    cost: str
    parameter: str
    difference: float
    norm: float


@dataclasses.dataclass(frozen=True)
class EquivalenceReport(Tabled, Sequence[EquivalenceRow]):
    """What `equivalence` found: a sequence of rows.

    Attributes:
        rows: a row for each system, scheme, cost and parameter.

    Example: see `equivalence`.
    """

    rows: list[EquivalenceRow]

    def __getitem__(self, i: Any) -> Any:
        return self.rows[i]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def worst(self) -> float:
        """The largest relative difference."""
        return max(row.difference for row in self.rows)

    def cells(self) -> Table:
        """Return the rows as texts in columns."""
        kind = {"running": "running (RHEL)", "terminal": "terminal (HEB)"}
        rows = [
            (row.system, row.scheme, kind[row.cost], row.parameter, f"{row.difference:.1e}", f"{row.norm:.2e}")
            for row in self.rows
        ]
        return Table(("system", "discrete action", "cost", "parameter", "relative difference", "norm"), rows, "<<<<")


def equivalence(systems: Mapping[str, tuple[Hamiltonian, State, float]], steps: int = 40) -> EquivalenceReport:
    r"""Compute one gradient by GLEP in Lagrangian variables and by an echo in Hamiltonian ones, and compare them.

    GLEP under the dual of an initial value: the discrete Euler-Lagrange equations
    $D_2 L_d(q_{k-1}, q_k) + D_1 L_d(q_k, q_{k+1}) + \beta\,\partial c/\partial q_k = 0$ are solved backward from the
    free final coordinates and momentum, and $d/d\beta$ of $\sum_k \partial L_d / \partial\theta$ is taken. Hamiltonian
    echo learning: the momenta are flipped, the machine runs forward again, nudged, and $-\partial H/\partial\theta$ is
    read. The first uses neither momenta nor time reversal, the second no Lagrangian. RHEL has a running cost, HEB a
    terminal cost.

    Args:
        systems: triples (Hamiltonian, initial state `(q, p)`, step length) by name. Each Lagrangian is the Legendre
            transform of the Hamiltonian.
        steps: number of steps.

    Returns:
        `EquivalenceReport` with `rows`, `worst`, `table()` and `json()`. A separable system is run by both schemes.

    Raises:
        ArgumentTypeError: if `systems` is not a dictionary of such triples.
        ArgumentError: if a step length or the number of steps is not positive.

    Source: the special case of arXiv 2506.06248; J. E. Marsden and M. West, Acta Numerica 10 (2001) 357, eq. 1.3.1.

    Example:
        ```python
        charge = eg.systems.ChargedParticle()
        report = eg.equivalence({"charge": (charge, charge.start(), 0.05)})
        print(report)
        report.worst  # 1e-14 in float64
        ```
    """
    what = "a dictionary of triples (Hamiltonian, (q, p), dt) by name"
    _checks.instance("equivalence", "systems", systems, Mapping, what)
    _checks.integer("equivalence", "steps", steps, what="the number of steps")
    rows = []
    for name, triple in systems.items():
        if not isinstance(triple, tuple | list) or len(triple) != 3:
            raise ArgumentTypeError(
                f"equivalence: systems[{name!r}]={_checks.shown(triple)} is not a triple (Hamiltonian, (q, p), dt)."
            )
        system, start, dt = triple
        _checks.instance("equivalence", f"systems[{name!r}][0]", system, Hamiltonian, "a Hamiltonian")
        start = _checks.pair("equivalence", f"systems[{name!r}][1]", start)
        dt = _checks.constant("equivalence", f"systems[{name!r}][2]", dt, _checks.positive, "a step length is positive")
        schemes: dict[Scheme, AbstractIntegrator] = {"midpoint": ImplicitMidpoint()}
        if isinstance(system, SeparableHamiltonian):
            schemes["trapezoid"] = VelocityVerlet()
        for scheme, integrator in schemes.items():
            for cost in ("running", "terminal"):
                running = jnp.asarray(cost == "running")
                echo = _by_echo(system, start, dt, steps, integrator, running)
                glep = _by_glep(legendre(system), start, dt, steps, scheme, running)
                for parameter, norm, found in compare_parameters(glep, echo):
                    rows.append(EquivalenceRow(name, scheme, cost, parameter, found.relative_error, norm))
    return EquivalenceReport(rows)


def _cost(q: PyTree) -> Float[Array, ""]:
    return jnp.sum(jnp.sin(_tree.flat(q)) ** 2)


@eqx.filter_jit
def _by_echo(
    system: Hamiltonian, start: State, dt: float, steps: int, integrator: AbstractIntegrator, running: Bool[Array, ""]
) -> PyTree:
    """Return the gradient by Hamiltonian echo learning. One program serves both kinds of cost."""

    def loss(system: Hamiltonian) -> Float[Array, ""]:
        options: Any = {
            "integrator": integrator,
            "gradient": Echo(),
            "save": FinalNode(),
            "cost": lambda t, q, p: _cost(q),
        }
        sol = solve(system, InitialValue(*start), dt=dt, steps=steps, **options)
        return jnp.where(running, sol.cost, _cost(sol.q))

    return eqx.filter_grad(loss)(system)


@eqx.filter_jit
def _by_glep(
    lagrangian: Lagrangian, start: State, dt: float, steps: int, scheme: Scheme, running: Bool[Array, ""]
) -> PyTree:
    """Return the gradient by GLEP in Lagrangian variables, without the engines of the library."""
    wanted, rest = eqx.partition(lagrangian, eqx.is_inexact_array)
    q0, unravel = ravel_pytree(start[0])
    p0 = _tree.flat(start[1])
    h = jnp.asarray(dt, q0.dtype)
    half = jnp.asarray(0.5, q0.dtype)

    def discrete(wanted: Any, k: Array, a: Array, b: Array) -> Float[Array, ""]:
        system, t = eqx.combine(wanted, rest), k.astype(h.dtype) * h
        v = (b - a) / h
        if scheme == "midpoint":
            return h * system(t + half * h, unravel(half * (a + b)), unravel(v), None)
        return half * h * (system(t, unravel(a), unravel(v), None) + system(t + h, unravel(b), unravel(v), None))

    left, right = jax.grad(discrete, 2), jax.grad(discrete, 3)
    slope = jax.grad(_cost)

    def onward(carry: Any, k: Array) -> Any:
        """Step from qₖ and its momentum to qₖ₊₁, by the discrete Legendre transform pₖ = -D₁L_d."""
        q, p = carry
        after = root(lambda x: p + left(wanted, k, q, x), q + h * p)
        return (after, right(wanted, k, q, after)), after

    nodes = jnp.arange(steps)
    (last, p_last), path = jax.lax.scan(onward, (q0, p0), nodes)
    path = jnp.concatenate([q0[None], path])
    forces = jax.vmap(slope)(path)
    forces = forces.at[:-1].multiply(running.astype(h.dtype))

    def readings(beta: Float[Array, ""]) -> PyTree:
        """Solve the nudged equations backward from the free end, and sum ∂L_d/∂θ."""

        def back(carry: Any, k: Array) -> Any:
            # The Euler-Lagrange equation at the later node holds if D₂L_d equals `required` there.
            later, required, total = carry
            earlier = root(lambda x: right(wanted, k, x, later) - required, path[k])
            total = _tree.add(total, jax.grad(discrete)(wanted, k, earlier, later))
            return (earlier, -left(wanted, k, earlier, later) - beta * forces[k], total), None

        begin = (last, p_last - beta * forces[-1], _tree.zeros_like(wanted))
        return jax.lax.scan(back, begin, nodes[::-1])[0][2]

    return jax.jvp(readings, (jnp.zeros_like(h),), (jnp.ones_like(h),))[1]
