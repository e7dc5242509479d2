"""What is wrong with machines: imperfections of simulated ones, one by one."""

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
    """When something happens: in which run of which experiment.

    Attributes:
        experiment: which experiment.
        run: which run of it, 0 being the forward one.
    """

    experiment: Int[Array, ""]
    run: Int[Array, ""]

    def key(self, key: PRNGKeyArray, *more: Any) -> PRNGKeyArray:
        """Return the random key of this run, or of one moment `more` of it."""
        for number in (self.experiment, self.run, *more):
            key = jax.random.fold_in(key, number)
        return key


class AbstractImperfection(eqx.Module):
    """Something in which a machine differs from what its owner takes it for.

    Every method is a place where a machine can go wrong; by default nothing does. States are pairs `(q, p)` in the
    machine's own terms: momenta of an echo are those it has, after the flip.
    """

    def realised(self, parameters: PyTree, run_id: RunId) -> PyTree:
        """Return the parameters that the machine has when it is commanded these."""
        return parameters

    def reversed(self, z: State, run_id: RunId) -> State:
        """Return the state that the mirror leaves when this one would be perfect."""
        return z

    def kicked(self, kicks: State, run_id: RunId) -> State:
        """Return the kicks of all nodes that arrive when these are ordered."""
        return kicks

    def moved(self, z: State, dt: Float[Array, ""], k: Int[Array, ""], run_id: RunId) -> State:
        """Return the state after the `k`-th step of a run, when it would be this one."""
        return z

    def seen(self, z: State, k: Int[Array, ""], run_id: RunId) -> State:
        """Return what is read of the state at the `k`-th node of a run; parameters are read through the same sensor."""
        return z


class Mismatch(AbstractImperfection):
    r"""Fabrication mismatch: every parameter is off by a factor that never changes.

    $\theta \to \theta\,(1 + \sigma \xi)$ with $\xi \sim \mathcal N(0, 1)$ for every entry, the same in all runs of all
    experiments. An echo runs on the machine as it is and reads the gradient of *that*, so training in situ compensates
    mismatch; it knows the elements as they are, not what they were commanded to be.

    Args:
        spread: relative standard deviation $\sigma$, without unit.
        key: random key; the same key is the same machine.

    Raises:
        ValueError: if the spread is negative, not finite or not one number.

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
    r"""Drift from run to run: every parameter is multiplied by a factor drawn anew in each run.

    $\theta \to \theta\,(1 + \sigma \xi)$ with $\xi \sim \mathcal N(0, 1)$ for every entry, drawn anew for every run.
    What differs between the echoes of one experiment is taken for their response to the nudge: their readings differ by
    $O(\sigma)$, whatever the nudge, so the gradient is off by $O(\sigma/\beta)$. The hardest to live with: nudge
    strongly, or average over many experiments.

    Args:
        spread: relative standard deviation $\sigma$, without unit.
        key: random key; with the same one, the same run of the same experiment drifts alike.

    Raises:
        ValueError: if the spread is negative, not finite or not one number.

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
    r"""Friction that nothing compensates: $p \to e^{-\gamma h} p$ after every step, forward and in the echo.

    An echo cannot regain what the forward run lost, so it leaves the path: the gradient is off in proportion to
    $\gamma T$, T being the time of a run. (Friction that is part of the `model` is another matter: see `MassDamped`.)

    Args:
        rate: $\gamma$, in inverse units of time.

    Raises:
        ValueError: if the rate is negative, not finite or not one number.

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
    r"""White force noise, drawn anew in every run: $p \to p + \sigma \sqrt h\,\xi$ after every step.

    Like `Drift` it differs between the echoes of one experiment, so its part of the gradient is $O(\sigma/\beta)$; it
    averages out over experiments but for a bias of second order.

    Args:
        strength: $\sigma$, in units of momentum over the square root of time; after a time T momenta of free masses
            have spread by $\sigma \sqrt T$.
        key: random key; with the same one, the same run of the same experiment is shaken alike.

    Raises:
        ValueError: if the strength is negative, not finite or not one number.

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
    r"""Noise of the sensors: $z \to z + \sigma \xi$ in whatever is read at a node, the motion itself being untouched.

    It reaches the loss, the state in which echoes are prepared, and, divided by $\beta$, the readings. As the readings
    of every step are noisy independently, they average better than the echo's last state does.

    Args:
        scale: standard deviation $\sigma$, in the units of coordinates and momenta.
        key: random key; with the same one, the same run of the same experiment is read alike.

    Raises:
        ValueError: if the scale is negative, not finite or not one number.

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
    r"""A reversal that does not flip all of the motion: $p \to -g p + \sigma \xi$ where $p \to -p$ was meant.

    What is systematic in it puts every echo on the same wrong path and does not average out: the gradient is off in
    proportion to $1 - g$. Its noise differs between echoes, like `ForceNoise` that strikes once.

    Args:
        gain: $g$, without unit; 1 is perfect.
        noise: standard deviation $\sigma$, in units of momentum.
        key: random key of the noise; not needed without.

    Raises:
        ValueError: if a number is negative, not finite or not one number, or if there is noise without a key.

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
    r"""Converters of finite resolution: what is read, and what is kicked, is rounded to multiples of one step.

    A converter of b bits and full scale $\pm A$ has steps of $2A / 2^b$.

    Args:
        readout: step of what is read at a node, in the units of coordinates and momenta; 0 for a perfect converter.
        kicks: step of the kicks, in the same units. A nudge of less than half a step never arrives.

    Raises:
        ValueError: if a step is negative, not finite or not one number.

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
    """Return `value`, with the derivative of `x`: as if their difference were added from outside."""
    return jax.lax.stop_gradient(value) + (x - jax.lax.stop_gradient(x))


def _checked(owner: str, name: str, x: Any) -> None:
    """Raise unless `x` is one finite number, not negative; of a traced one, that it is one number."""
    _checks.number(owner, name, x, _checks.not_negative, "it must be finite and not negative")


def _noisy(x: PyTree, scale: Any, key: PRNGKeyArray) -> PyTree:
    """Return a tree with independent Gaussian noise of this standard deviation on every entry."""
    leaves, treedef = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return _tree.add(x, _tree.scale(scale, jax.tree.unflatten(treedef, noise)))


def _scattered(parameters: PyTree, spread: Any, key: PRNGKeyArray) -> PyTree:
    """Return parameters times 1 + spread ξ, complex ones by a real factor."""
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.real.dtype), parameters)
    return jax.tree.map(lambda x, factor: x * factor, parameters, _noisy(ones, spread, key))


def _rounded(x: PyTree, step: Any) -> PyTree:
    """Return a tree rounded to multiples of a step, as it is where the step is zero; its derivative is that of `x`."""

    def leaf(x: Array) -> Array:
        s = jnp.asarray(step, x.dtype)
        return straight_through(jnp.where(s > 0, s * jnp.round(x / jnp.where(s > 0, s, 1)), x), x)

    return x if isinstance(step, int | float) and step == 0 else jax.tree.map(leaf, x)
