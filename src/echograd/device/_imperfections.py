"""Imperfections of simulated machines."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from ..integrators import State

Strength = float | Float[Array, ""]


class RunId(eqx.Module):
    """The number of a run and of its experiment.

    Attributes:
        experiment: number of the experiment.
        run: number of the run; 0 is the forward run.

    Example:
        ```python
        eg.device.RunId(jnp.asarray(0), jnp.asarray(1)).key(jax.random.key(0))  # of the first echo
        ```
    """

    experiment: Int[Array, ""]
    run: Int[Array, ""]

    def key(self, key: PRNGKeyArray, *more: Any) -> PRNGKeyArray:
        """Return the random key of this run, or of a part of it with the numbers `more`."""
        for number in (self.experiment, self.run, *more):
            key = jax.random.fold_in(key, number)
        return key


class AbstractImperfection(eqx.Module):
    """A difference between a machine and its owner's model.

    Every method changes one thing that a machine does; by default it changes nothing. States are pairs `(q, p)` as the
    machine has them: in an echo, with the momenta after the flip.

    Example:
        ```python
        class Offset(eg.device.AbstractImperfection):  # every coordinate reads too high
            def seen(self, z, k, run_id):
                return z[0] + 1e-3, z[1]

        machine = eg.device.Simulated([Offset()])
        ```
    """

    def realised(self, parameters: PyTree, run_id: RunId) -> PyTree:
        """Return the actual parameters for these commanded ones."""
        return parameters

    def reversed(self, z: State, run_id: RunId) -> State:
        """Return the actual state after the reversal, for this ideal one."""
        return z

    def kicked(self, kicks: State, run_id: RunId) -> State:
        """Return the actual kicks of all nodes, for these ordered ones."""
        return kicks

    def moved(self, z: State, dt: Float[Array, ""], k: Int[Array, ""], run_id: RunId) -> State:
        """Return the actual state after the `k`-th step of a run, for this ideal one."""
        return z

    def seen(self, z: State, k: Int[Array, ""], run_id: RunId) -> State:
        """Return the state as read at the `k`-th node of a run. Parameters are read through the same sensor."""
        return z


class Mismatch(AbstractImperfection):
    r"""Fabrication mismatch: every parameter is off by a constant factor.

    $\theta \to \theta\,(1 + \sigma \xi)$ with $\xi \sim \mathcal N(0, 1)$ for every entry, the same in all runs of all
    experiments. An echo reads the gradient of the machine with its actual parameters, so training in situ compensates
    mismatch.

    Args:
        spread: relative standard deviation $\sigma$, without unit.
        key: random key; the same key gives the same machine.

    Raises:
        ArgumentError: if the spread is negative, not finite or not one number.
        ArgumentTypeError: if the key is not one random key.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Mismatch(0.1, jax.random.key(0))])
        ```
    """

    spread: Strength
    key: PRNGKeyArray

    def __check_init__(self) -> None:
        _checked("Mismatch", "spread", self.spread)
        _checks.key("Mismatch", self.key)

    def realised(self, parameters: PyTree, run_id: RunId) -> PyTree:
        return _scattered(parameters, self.spread, self.key)


class Drift(AbstractImperfection):
    r"""Drift from run to run: every parameter is multiplied by a new random factor in each run.

    $\theta \to \theta\,(1 + \sigma \xi)$ with $\xi \sim \mathcal N(0, 1)$ for every entry and every run. The gradient
    is the difference of echoes over $\beta$. Drift changes their readings by $O(\sigma)$ for any nudge, so the gradient
    is off by $O(\sigma/\beta)$. This is the most harmful imperfection: nudge strongly, or average over many
    experiments.

    Args:
        spread: relative standard deviation $\sigma$, without unit.
        key: random key; the same key gives the same factors in the same run of the same experiment.

    Raises:
        ArgumentError: if the spread is negative, not finite or not one number.
        ArgumentTypeError: if the key is not one random key.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Drift(1e-4, jax.random.key(0))])
        ```
    """

    spread: Strength
    key: PRNGKeyArray

    def __check_init__(self) -> None:
        _checked("Drift", "spread", self.spread)
        _checks.key("Drift", self.key)

    def realised(self, parameters: PyTree, run_id: RunId) -> PyTree:
        return _scattered(parameters, self.spread, run_id.key(self.key))


class Friction(AbstractImperfection):
    r"""Uncompensated friction: $p \to e^{-\gamma h} p$ after every step, forward and in the echo.

    An echo does not regain the energy that the forward run lost, so it leaves the path. The gradient is off in
    proportion to $\gamma T$ for a run of duration T. (For friction in the `model` see `MassDamped`.)

    Args:
        rate: $\gamma$, in inverse units of time.

    Raises:
        ArgumentError: if the rate is negative, not finite or not one number.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Friction(1e-3)])
        ```
    """

    rate: Strength

    def __check_init__(self) -> None:
        _checked("Friction", "rate", self.rate)

    def moved(self, z: State, dt: Float[Array, ""], k: Int[Array, ""], run_id: RunId) -> State:
        q, p = z
        return q, _tree.scale(jnp.exp(-jnp.asarray(self.rate, dt.dtype) * dt), p)


class ForceNoise(AbstractImperfection):
    r"""White force noise, new in every run: $p \to p + \sigma \sqrt h\,\xi$ after every step.

    Like `Drift` it differs between the echoes of one experiment, so its error of the gradient is $O(\sigma/\beta)$. The
    error averages out over experiments, except for a bias of second order.

    Args:
        strength: $\sigma$, in units of momentum over the square root of time. After a time T the momenta of free masses
            have a standard deviation of $\sigma \sqrt T$.
        key: random key; the same key gives the same noise in the same run of the same experiment.

    Raises:
        ArgumentError: if the strength is negative, not finite or not one number.
        ArgumentTypeError: if the key is not one random key.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.ForceNoise(1e-4, jax.random.key(0))])
        ```
    """

    strength: Strength
    key: PRNGKeyArray

    def __check_init__(self) -> None:
        _checked("ForceNoise", "strength", self.strength)
        _checks.key("ForceNoise", self.key)

    def moved(self, z: State, dt: Float[Array, ""], k: Int[Array, ""], run_id: RunId) -> State:
        q, p = z
        return q, _noisy(p, jnp.asarray(self.strength, dt.dtype) * jnp.sqrt(dt), run_id.key(self.key, k))


class ReadoutNoise(AbstractImperfection):
    r"""Noise of the sensors: $z \to z + \sigma \xi$ in every reading at a node; the motion itself is unchanged.

    It changes the loss, the state in which echoes are prepared, and, divided by $\beta$, the gradient. The noise of the
    steps is independent, so their sum averages better than the last state of the echo.

    Args:
        scale: standard deviation $\sigma$, in the units of coordinates and momenta.
        key: random key; the same key gives the same noise in the same run of the same experiment.

    Raises:
        ArgumentError: if the scale is negative, not finite or not one number.
        ArgumentTypeError: if the key is not one random key.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.ReadoutNoise(1e-3, jax.random.key(0))])
        ```
    """

    scale: Strength
    key: PRNGKeyArray

    def __check_init__(self) -> None:
        _checked("ReadoutNoise", "scale", self.scale)
        _checks.key("ReadoutNoise", self.key)

    def seen(self, z: State, k: Int[Array, ""], run_id: RunId) -> State:
        return _noisy(z, self.scale, run_id.key(self.key, k))


class ImperfectMirror(AbstractImperfection):
    r"""An imperfect reversal: $p \to -g p + \sigma \xi$ instead of $p \to -p$.

    The systematic part puts every echo on the same wrong path and does not average out: the gradient is off in
    proportion to $1 - g$. The noise differs between echoes, like a `ForceNoise` that acts once.

    Args:
        gain: $g$, without unit; 1 is perfect.
        noise: standard deviation $\sigma$, in units of momentum.
        key: random key of the noise; needed only with noise.

    Raises:
        ArgumentError: if a number is negative, not finite or not one number, or if there is noise without a key.
        ArgumentTypeError: if the key is not one random key.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.ImperfectMirror(0.98)])
        ```
    """

    gain: Strength = 1.0
    noise: Strength = 0.0
    key: PRNGKeyArray | None = None

    def __check_init__(self) -> None:
        _checked("ImperfectMirror", "gain", self.gain)
        _checked("ImperfectMirror", "noise", self.noise)
        if self.key is not None:
            _checks.key("ImperfectMirror", self.key)
        elif not (isinstance(self.noise, int | float) and self.noise == 0):
            raise ArgumentError("ImperfectMirror: noise needs a random key. Pass key=jax.random.key(0), or noise=0.")

    def reversed(self, z: State, run_id: RunId) -> State:
        q, p = z
        p = _tree.scale(self.gain, p)
        return q, p if self.key is None else _noisy(p, self.noise, run_id.key(self.key))


class Quantisation(AbstractImperfection):
    r"""Converters of finite resolution: readings and kicks are rounded to multiples of a step.

    A converter with b bits and full scale $\pm A$ has the step $2A / 2^b$.

    Args:
        readout: step of the readings at a node, in the units of coordinates and momenta; 0 for a perfect converter.
        kicks: step of the kicks, in the same units. A kick of less than half a step is rounded to zero.

    Raises:
        ArgumentError: if a step is negative, not finite or not one number.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Quantisation(readout=2 * 1.5 / 2**12)])  # 12 bits, from -1.5 to 1.5
        ```
    """

    readout: Strength = 0.0
    kicks: Strength = 0.0

    def __check_init__(self) -> None:
        _checked("Quantisation", "readout", self.readout)
        _checked("Quantisation", "kicks", self.kicks)

    def kicked(self, kicks: State, run_id: RunId) -> State:
        return _rounded(kicks, self.kicks)

    def seen(self, z: State, k: Int[Array, ""], run_id: RunId) -> State:
        return _rounded(z, self.readout)


def straight_through(value: Array, x: Array) -> Array:
    """Return `value` with the derivative of `x`."""
    return jax.lax.stop_gradient(value) + (x - jax.lax.stop_gradient(x))


def _checked(owner: str, name: str, x: Any) -> None:
    """Raise unless `x` is one finite number that is not negative; a traced array must only be one number."""
    _checks.number(owner, name, x, _checks.not_negative, "it must be finite and not negative")


def _noisy(x: PyTree, scale: Any, key: PRNGKeyArray) -> PyTree:
    """Return a tree plus independent Gaussian noise of this standard deviation."""
    leaves, treedef = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return _tree.add(x, _tree.scale(scale, jax.tree.unflatten(treedef, noise)))


def _scattered(parameters: PyTree, spread: Any, key: PRNGKeyArray) -> PyTree:
    """Return parameters times 1 + spread ξ, with real ξ for complex ones too."""
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.real.dtype), parameters)
    return jax.tree.map(lambda x, factor: x * factor, parameters, _noisy(ones, spread, key))


def _rounded(x: PyTree, step: Any) -> PyTree:
    """Return a tree rounded to multiples of a step, or unchanged for a step of zero, with the derivative of `x`."""

    def leaf(x: Array) -> Array:
        s = jnp.asarray(step, x.dtype)
        return straight_through(jnp.where(s > 0, s * jnp.round(x / jnp.where(s > 0, s, 1)), x), x)

    return x if isinstance(step, int | float) and step == 0 else jax.tree.map(leaf, x)
