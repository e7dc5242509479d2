"""Lossy systems, and the errors of their exact gradients and of controls: the rows of the table of docs/loss.md.

Every class of systems has a gradient that is exact on the machine or in software, and a control: the same procedure
without the property that the class needs. All in float64, against `Backprop()` through the same discrete map.
scripts/write_loss.py writes the table, and tests/damping/test_loss.py takes the same measurements.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import echograd as eg
from echograd.friction import AbstractAction, AbstractFriction, Drag, FrictionMatrix, Instant, Scaling, Shear

STEPS, DT = 100, 0.1
Params = dict[str, Array]


class Chain(eg.SeparableHamiltonian):
    """Three masses between two walls, with springs that harden, and a drive on the first mass."""

    mass: Array
    spring: Array
    hardening: Array

    def kinetic(self, t: Any, p: Array) -> Array:
        """Return the kinetic energy."""
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t: Any, q: Array, u: Any) -> Array:
        """Return the energy of the springs and the drive."""
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.spring * (stretch**2 / 2 + self.hardening * stretch**4 / 4)) - u * q[0]


class Springs(eg.SeparableHamiltonian):
    """Linear springs with a symmetric matrix."""

    mass: Array
    stiffness: Array

    def kinetic(self, t: Any, p: Array) -> Array:
        """Return the kinetic energy."""
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t: Any, q: Array, u: Any) -> Array:
        """Return the energy of the springs and the drive."""
        return 0.5 * q @ self.stiffness @ q - u * q[0]


class OneWay(AbstractFriction):
    """Friction, and a force without energy that acts with it: the antisymmetric part of a stiffness."""

    rate: Array
    skew: Array

    def over_one_step(self, system: eg.SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "OneWayStep":
        """Return the moves of a step."""
        return OneWayStep(-jnp.expm1(-self.rate * h), self.skew)


class OneWayStep(AbstractAction):
    """Half a push, the friction, half a push."""

    lost: Array
    skew: Array

    def moves(self, now: Instant) -> tuple[Shear | Scaling, ...]:
        """Return the moves."""
        push = Shear(lambda p: -0.5 * now.h * (self.skew @ now.q))
        return push, Scaling(lambda p: jnp.broadcast_to(self.lost, p.shape)), push


class Law(eqx.Module):
    """Drag with a linear and a quadratic part."""

    linear: Array
    quadratic: Array

    def __call__(self, t: Any, q: Array, p: Array, u: Any) -> Array:
        """Return the drag."""
        return (self.linear + self.quadratic * jnp.abs(p)) * p


# The systems of the table, as functions of their parameters.


def _solved(system: Any, x: Params, gradient: Any, *, columns: bool = False, throw: bool = True) -> tuple[Array, Any]:
    """Return the mean squared error of the path of the three masses, and the path."""
    drive = jnp.sin(0.7 * DT * jnp.arange(float(STEPS)))
    target = jnp.outer(jnp.cos(0.5 * DT * jnp.arange(STEPS + 1.0)), jnp.array([0.4, -0.3, 0.2]))
    start = eg.InitialValue(x["q"], x["p"])
    drive = drive[:, None] if columns else drive
    sol = eg.solve(system, start, drive, dt=DT, gradient=gradient, throw=throw)
    return 0.5 * jnp.mean((sol.q[:, :3] - target) ** 2), (sol.q, sol.p, target, drive)


def _chain(x: Params) -> Chain:
    return Chain(x["mass"], x["spring"], x["hardening"])


def _mass_damped(x: Params, gradient: Any) -> Any:
    return _solved(eg.MassDamped(_chain(x), x["rate"]), x, gradient)


def _rates(x: Params, gradient: Any) -> Any:
    return _solved(eg.Damped(_chain(x), x["rate"]), x, gradient)


def _drag(x: Params, gradient: Any) -> Any:
    return _solved(eg.Damped(_chain(x), Drag(Law(x["rate"], x["quadratic"]))), x, gradient)


def _matrices(x: Params, gradient: Any) -> Any:
    return _solved(
        eg.Damped(Springs(x["mass"], x["stiffness"]), FrictionMatrix(x["damping"] / x["mass"][None])), x, gradient
    )


def _one_way(x: Params, gradient: Any) -> Any:
    even, odd = 0.5 * (x["stiffness"] + x["stiffness"].T), 0.5 * (x["stiffness"] - x["stiffness"].T)
    return _solved(eg.Damped(Springs(x["mass"], even), OneWay(x["rate"], odd)), x, gradient)


def _machine(x: Params, gradient: Any, twist: Array, throw: bool) -> Any:
    """Solve M q'' + D q' + K q = B u on the machine itself."""
    drive = jnp.zeros_like(x["q"]).at[0].set(1.0)[:, None]
    system = eg.LinearDamped(x["mass"], x["damping"], x["stiffness"], drive, twist)
    return _solved(system, x, gradient, columns=True, throw=throw)


def _with_twin(x: Params, gradient: Any, twist: Array, throw: bool) -> Any:
    """Solve for the machine beside one whose field is reversed, at rest."""
    beside = lambda a, b: jax.scipy.linalg.block_diag(a, b)  # noqa: E731
    pair = {
        "mass": jnp.concatenate([x["mass"]] * 2),
        "damping": beside(x["damping"], x["damping"].T),
        "stiffness": beside(x["stiffness"], x["stiffness"]),
        "q": jnp.concatenate([x["q"], jnp.zeros(3)]),
        "p": jnp.concatenate([x["p"], jnp.zeros(3)]),
    }
    return _machine(pair, gradient, twist, throw)


def _echo_with_gain(x: Params, weight: Array) -> Params:
    """Return what an echo reads on the chain if all friction turns into gain, so that it runs back along its path.

    Args:
        x: the parameters.
        weight: nudges and readings have the weight exp(weight t).
    """
    (q, p, target, drive) = _rates(x, eg.Backprop())[1]
    bars, factor = (q - target) / target.size, jnp.exp(x["rate"] * DT)

    def nudged(beta: Array) -> Params:
        def back(z: Any, row: Any) -> Any:
            u, bar, k = row
            late, early = jnp.exp(weight * DT * (k + 1.0)), jnp.exp(weight * DT * k)
            q, p = z[0], z[1] + beta * bar / late
            half = q + 0.5 * DT * p / x["mass"]
            force = -jax.grad(_chain(x).potential, 1)(0.0, half, u)
            after = factor * (p + 0.5 * DT * force) + 0.5 * DT * force

            def reading(x: Params) -> Array:
                kinetic = late * _chain(x).kinetic(0.0, p) + early * _chain(x).kinetic(0.0, after)
                return -0.5 * DT * (kinetic + (late + early) * _chain(x).potential(0.0, half, u))

            return (half + 0.5 * DT * after / x["mass"], after), jax.grad(reading)(x)

        readings = jax.lax.scan(back, (q[-1], -p[-1]), (drive, bars[1:], jnp.arange(float(STEPS))), reverse=True)[1]
        return {name: jnp.sum(readings[name], 0) for name in ("mass", "spring", "hardening")}

    return jax.jvp(nudged, (jnp.zeros(()),), (jnp.ones(()),))[1]


def _rewound_in_floats(x: Params, steps: int) -> tuple[Array, Array]:
    """Return the end of a run and that of its reversal in floats without a record, which divides by exp(-rate h)."""
    system, factor = _chain(x), jnp.exp(-x["rate"] * DT)

    def step(k: Any, z: Any, back: bool = False) -> Any:
        q, p = z
        h = -DT if back else DT
        half = q + 0.5 * h * p / x["mass"]
        force = -jax.grad(system.potential, 1)(0.0, half, 0.0)
        p = (p + 0.5 * h * force) / factor if back else (p + 0.5 * h * force) * factor
        p = p + 0.5 * h * force
        return half + 0.5 * h * p / x["mass"], p

    end = jax.lax.fori_loop(0, steps, step, (x["q"], x["p"]))
    return x["q"], jax.lax.fori_loop(0, steps, lambda k, z: step(k, z, back=True), end)[0]


# What is measured.


@functools.cache
def _program(f: Callable[..., Any], *gradients: Any) -> Any:
    """Return a compiled function to the gradients of a loss with respect to the parameters, of all kinds."""

    @eqx.filter_jit
    def gradients_of(x: Params, *more: Any) -> list[Params]:
        return [eqx.filter_grad(f, has_aux=True)(x, gradient, *more)[0] for gradient in gradients]

    return gradients_of


_echo_with_gain_compiled = eqx.filter_jit(_echo_with_gain)


def error(found: Params, exact: Params) -> float:
    """Return the largest relative error of a parameter array."""
    parts = [jnp.max(jnp.abs(found[k] - exact[k])) / jnp.max(jnp.abs(exact[k])) for k in found]
    return float(jnp.max(jnp.stack(parts)))


def _exact(f: Callable[..., Any], gradient: type, x: Params, *more: Any) -> float:
    exact, found = _program(f, eg.Backprop(), gradient())(x, *more)
    return error(found, exact)


class Row(NamedTuple):
    """A class of systems: its name, its routes in words, and the error of each; `None` if there is no route."""

    name: str
    machine: str
    software: str
    control: str
    errors: Callable[[], tuple[float | None, float, float]]


def _params(**more: Any) -> Params:
    start = {"q": [1.0, -0.5, 0.3], "p": [0.2, 0.4, -0.6], "mass": [1.0, 2.0, 0.5]}
    return {name: jnp.asarray(x) for name, x in (start | more).items()}


SPRINGS = {"spring": [1.0, 0.6, 0.8, 1.2], "hardening": 0.5}
FRICTION = np.array([[0.4, -0.1, 0.05], [-0.1, 0.2, -0.15], [0.05, -0.15, 0.5]])
STIFFNESS = np.array([[2.2, -0.6, 0.2], [-0.6, 1.4, -0.5], [0.2, -0.5, 2.0]])
FIELD = np.array([[0.0, 0.8, -0.4], [-0.8, 0.0, 0.6], [0.4, -0.6, 0.0]])
MIRROR = np.diag([1.0, -1.0, 1.0])


def _on_machine(damping: Any, stiffness: Any, twist: Any, *, throw: bool = True, **more: Any) -> float:
    x = _params(damping=damping, stiffness=stiffness, **more)
    return _exact(_machine, eg.Reciprocal, x, jnp.asarray(twist), throw)


def _proportional() -> tuple[float, float, float]:
    x = _params(**SPRINGS, rate=[0.4] * 3)
    exact, found = _program(_rates, eg.Backprop(), eg.Rewind())(x)
    machine = _exact(_mass_damped, eg.Echo, x | {"rate": jnp.asarray(0.4)})
    assert error(_echo_with_gain_compiled(x, jnp.asarray(0.4)), exact) < 1e-9  # with its weights it is exact, too
    return machine, error(found, exact), error(_echo_with_gain_compiled(x, jnp.asarray(0.0)), exact)


def _reciprocal() -> tuple[float, float, float]:
    machine = _on_machine(FRICTION, STIFFNESS, np.eye(3))
    control = _on_machine(FRICTION + 0.5 * FIELD, STIFFNESS, np.eye(3), throw=False)
    return machine, _exact(_matrices, eg.Rewind, _params(damping=FRICTION, stiffness=STIFFNESS)), control


def _twisted() -> tuple[float, float, float]:
    hops = 0.6 * (np.exp(0.4) * np.eye(3, k=1) + np.exp(-0.4) * np.eye(3, k=-1))
    mass, damping, stiffness = np.ones(3), 0.3 * np.eye(3), np.diag([2.0, 2.5, 2.0]) - hops
    machine = _on_machine(damping, stiffness, np.eye(3)[::-1], mass=mass)
    control = _on_machine(damping, stiffness, np.eye(3), mass=mass, throw=False)
    return machine, _exact(_one_way, eg.Rewind, _params(mass=mass, stiffness=stiffness, rate=0.3)), control


def _onsager() -> tuple[float, float, float]:
    x = _params(damping=FRICTION + FIELD, stiffness=STIFFNESS)
    swap = np.roll(np.eye(6), 3, 0)
    machine = _exact(_with_twin, eg.Reciprocal, x, jnp.asarray(swap), True)
    control = _on_machine(FRICTION + FIELD, STIFFNESS, np.eye(3), throw=False)
    return machine, _exact(_matrices, eg.Rewind, x), control


def _gyroscopic() -> tuple[float, float, float]:
    keep = lambda a, sign: 0.5 * (a + sign * MIRROR @ a @ MIRROR)  # noqa: E731
    damping, stiffness = keep(FRICTION, 1) + keep(FIELD, -1), keep(STIFFNESS, 1)
    machine = _on_machine(damping, stiffness, MIRROR)
    control = _on_machine(damping, stiffness, np.eye(3), throw=False)
    return machine, _exact(_matrices, eg.Rewind, _params(damping=damping, stiffness=stiffness)), control


def _unequal() -> tuple[None, float, float]:
    x = _params(**SPRINGS, rate=[0.1, 0.3, 0.8])
    exact, found = _program(_rates, eg.Backprop(), eg.Rewind())(x)
    return None, error(found, exact), error(_echo_with_gain_compiled(x, jnp.asarray(0.4)), exact)


def _nonlinear_drag() -> tuple[None, float, float]:
    x = _params(**SPRINGS, rate=[0.1, 0.3, 0.8], quadratic=0.5)
    start, rewound = jax.jit(functools.partial(_rewound_in_floats, steps=1200))(x)
    strayed = float(jnp.max(jnp.abs(rewound - start)) / jnp.max(jnp.abs(start)))
    return None, _exact(_drag, eg.Rewind, x), strayed


ROWS = (
    Row(
        "Damping in proportion to the mass, any forces",
        "the echo with damping turned into gain and weights e^γt: `MassDamped`, `Echo()`; or without gain: `Envelope`",
        "`Damped(system, rate)`, `Rewind()`",
        "gain without the weights",
        _proportional,
    ),
    Row(
        "Linear and reciprocal, any damping",
        "the same lossy machine, driven by the reversed error: `LinearDamped`, `Reciprocal()`",
        "`FrictionMatrix`, `Rewind()`",
        "a damping matrix that is not symmetric",
        _reciprocal,
    ),
    Row(
        "Linear, twisted reciprocity (hops stronger one way)",
        "the same machine, the error sent in through its mirror image: `LinearDamped(twist=)`, `Reciprocal()`",
        "an `AbstractFriction` with a `Shear`, `Rewind()`",
        "without the twist",
        _twisted,
    ),
    Row(
        "Linear, Onsager: a magnetic field, no mirror",
        "the same machine with its field reversed: a twin and a swap as `twist`, `Reciprocal()`",
        "`FrictionMatrix`, `Rewind()`",
        "the field not reversed",
        _onsager,
    ),
    Row(
        "Linear, gyroscopic, with a mirror",
        "the same machine, the error sent in through the mirror: `LinearDamped(twist=)`, `Reciprocal()`",
        "`FrictionMatrix`, `Rewind()`",
        "without the mirror",
        _gyroscopic,
    ),
    Row(
        "Nonlinear forces, a rate for each momentum",
        "none",
        "`Damped(system, rates)`, `Rewind()`",
        "all friction turned into gain, weights of the mean rate",
        _unequal,
    ),
    Row(
        "Nonlinear forces, nonlinear drag",
        "none",
        "`Drag`, `Rewind()`",
        "rewound in floats without a record, linear drag, 1,200 steps: error of the start",
        _nonlinear_drag,
    ),
)
