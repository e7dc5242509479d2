"""Energy and velocity along a trajectory."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._internal import _checks, _tree
from ._internal._errors import ArgumentError, ArgumentTypeError
from ._internal._jaxpr import digest
from ._solve import Trajectory
from .friction import Damped
from .systems import Dissipative, Hamiltonian, Lagrangian, legendre
from .systems._legendre import LegendreHamiltonian


def energy(system: Hamiltonian | Lagrangian | Damped, sol: Trajectory, inputs: PyTree = None) -> Float[Array, "*nodes"]:
    r"""Return the energy at every kept node of a trajectory.

    $$E_k = H(t_k, q_k, p_k, u_k), \qquad \text{of a Lagrangian } \ H = p \cdot v - L, \quad
    \frac{\partial L}{\partial v} = p$$

    The input $u_k$ is that of the step that begins at node $k$, and at the last node that of the step that ends there,
    as for `InitialValue(q, v=v)`. Without inputs, friction and explicit time, $E_k$ is constant except for a bounded
    oscillation of the order of the scheme. Of a `Damped` system it is the mechanical energy, which friction takes. Of a
    `MassDamped` system or an `Envelope` it is the canonical energy, which depends on time explicitly. Differentiable
    with respect to system, trajectory and inputs; works under `jit` and `vmap`.

    Args:
        system: the system that `solve` ran.
        sol: the trajectory from `solve`, with any `save`; with a function or `FinalNode()`, only the final node is
            kept.
        inputs: the inputs of `solve`, with a leading axis of N steps.

    Returns:
        The energies of the kept nodes; a scalar if only the final node is kept.

    Raises:
        ArgumentTypeError: if the system has no energy (a `Dissipative` one), or `sol` is not a trajectory.
        ArgumentError: if the inputs have another number of steps, or `sol` is a batch; use `vmap` for that.

    Source: H. Goldstein, *Classical Mechanics*, section 8.1.

    Example:
        ```python
        kepler = eg.systems.Kepler()
        sol = eg.solve(kepler, eg.InitialValue(*kepler.start()), dt=0.01, steps=1000)
        drift = eg.energy(kepler, sol) - eg.energy(kepler, sol)[0]
        ```
    """
    return _at_nodes("energy", _energy, system, sol, inputs)


def velocity(system: Hamiltonian | Lagrangian | Damped, sol: Trajectory, inputs: PyTree = None) -> PyTree:
    r"""Return the velocities at every kept node of a trajectory.

    $$v_k = \frac{\partial H}{\partial p}(t_k, q_k, p_k, u_k), \qquad \text{of a Lagrangian where } \
    \frac{\partial L}{\partial v}(t_k, q_k, v_k, u_k) = p_k$$

    The inputs belong to the nodes as in `energy`. Differentiable with respect to system, trajectory and inputs; works
    under `jit` and `vmap`.

    The arguments are those of `energy`.

    Returns:
        Velocities, shaped like `sol.q`.

    Raises:
        ArgumentTypeError: if the system is given by its forces (a `Dissipative` one), or `sol` is not a trajectory.
        ArgumentError: if the inputs have another number of steps, or `sol` is a batch; use `vmap` for that.

    Source: H. Goldstein, *Classical Mechanics*, section 8.1.

    Example:
        ```python
        pendulum = eg.systems.SphericalPendulum()
        q, v = jnp.array([1.0, 0.0]), jnp.array([0.0, 0.5])
        sol = eg.solve(pendulum, eg.InitialValue(q, v=v), dt=0.01, steps=1000)
        eg.velocity(pendulum, sol)[0]  # v again
        ```
    """
    return _at_nodes("velocity", _velocity, system, sol, inputs)


def _energy(hamiltonian: Hamiltonian, *at: Any) -> Float[Array, ""]:
    return hamiltonian(*at)


def _velocity(hamiltonian: Hamiltonian, *at: Any) -> PyTree:
    return (hamiltonian.velocity if isinstance(hamiltonian, LegendreHamiltonian) else jax.grad(hamiltonian, 2))(*at)


def _hamiltonian(owner: str, system: Any) -> Hamiltonian:
    """Return the Hamiltonian of a system, or raise if it has none."""
    if isinstance(system, Dissipative):
        raise ArgumentTypeError(
            f"{owner}: {type(system).__name__} is a Dissipative system, given by its forces, so it has no energy. Its "
            "momenta are p = M v, which give the velocity if M is not zero. Write the energy that you need as a "
            "function of sol.q and sol.p."
        )
    if isinstance(system, Damped):
        return system.mechanical
    if not isinstance(system, Hamiltonian | Lagrangian):
        raise ArgumentTypeError(f"{owner}: the system is a {type(system).__name__}. Pass the one that `solve` ran.")
    return legendre(system) if isinstance(system, Lagrangian) else system


def _at_nodes(owner: str, read: Callable[..., Any], system: Any, sol: Trajectory, inputs: PyTree) -> Any:
    """Return `read(hamiltonian, t, q, p, u)` at every kept node."""
    hamiltonian = _hamiltonian(owner, system)
    if not isinstance(sol, Trajectory):
        raise ArgumentTypeError(f"{owner}: a {type(sol).__name__} is not a trajectory. Pass the result of `solve`.")
    final = sol.stride is None and sol.nodes is None
    if sol.t.ndim != (not final or sol.saved is not None):
        raise ArgumentError(
            f"{owner}: the times of the trajectory have shape {sol.t.shape}, so it is a batch or a part of a "
            f"trajectory. For a batch write jax.vmap(lambda sol: eg.{owner}(system, sol))(sol)."
        )
    inputs = _checks.numbers(owner, "inputs", inputs)
    lengths = {x.shape[:1] for x in jax.tree.leaves(inputs)}
    if len(lengths) > 1 or () in lengths:
        raise ArgumentError(f"{owner}: the inputs have no common leading axis of steps. Pass the inputs of `solve`.")
    one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)  # noqa: E731
    node = (sol.q, sol.p) if final else jax.tree.map(one, (sol.q, sol.p))
    t = jax.ShapeDtypeStruct((), sol.t.dtype)
    _checks.scalar(owner, "the energy(t, q, p, u)", hamiltonian, t, *node, jax.tree.map(one, inputs))
    if final:
        return _read(read, hamiltonian, False, jnp.ravel(sol.t)[-1], sol.q, sol.p, _tree.take(inputs, -1))
    kept = sol.nodes
    if lengths and kept is not None:
        inputs = jax.tree.map(lambda u: u[jnp.minimum(kept, u.shape[0] - 1)], inputs)
    elif lengths:
        (steps,), nodes = lengths.pop(), len(sol.t)
        assert sol.stride is not None
        if steps // sol.stride != nodes - 1:
            raise ArgumentError(
                f"{owner}: the trajectory has {nodes} nodes, one every {sol.stride} steps, and the inputs have {steps} "
                "steps. Pass the inputs of `solve`."
            )
        index = jnp.minimum(sol.stride * jnp.arange(nodes), steps - 1)
        inputs = jax.tree.map(lambda u: u[index], inputs)
    return _read(read, hamiltonian, True, sol.t, sol.q, sol.p, inputs)


def _read(read: Callable[..., Any], hamiltonian: Hamiltonian, mapped: bool, *at: PyTree) -> Any:
    # Cached by the program, as in `solve`, so that a changed global number takes effect.
    first = jax.tree.map(lambda x: x[0], at) if mapped else at
    arrays, static = eqx.partition(hamiltonian, eqx.is_array)
    program = digest(jax.make_jaxpr(lambda arrays, at: read(eqx.combine(arrays, static), *at))(arrays, first))
    return _compiled(read, hamiltonian, mapped, program, *at)


@eqx.filter_jit
def _compiled(read: Callable[..., Any], hamiltonian: Hamiltonian, mapped: bool, program: str, *at: PyTree) -> Any:
    del program
    one = functools.partial(read, hamiltonian)
    return (jax.vmap(one) if mapped else one)(*at)
