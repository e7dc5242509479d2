"""Energies of many JAX operations: echoes and their rearranged loops return the gradient of backprop."""

import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import linalg, special

import echograd as eg

pytestmark = [pytest.mark.float64_only, pytest.mark.slow, pytest.mark.least_effort]

TABLE, EDGES = np.array([2, 0, 1, 3]), (np.array([0, 1, 2]), np.array([1, 2, 3]))
MATRIX = 2 * np.eye(4) + 0.3
INNER, OUTER = np.float64(0.3), np.float64(0.8)


@jax.custom_jvp
def ruled(x):
    return jnp.tanh(x)


ruled.defjvp(lambda primals, tangents: (ruled(*primals), (1 - jnp.tanh(primals[0]) ** 2) * tangents[0]))


@jax.custom_vjp
def pulled(x):
    return jnp.sin(x) * x


pulled.defvjp(lambda x: (jnp.sin(x) * x, x), lambda x, bar: ((jnp.cos(x) * x + jnp.sin(x)) * bar,))

# Maps of four numbers x and four parameters k to four numbers.
OPERATIONS = (
    # indices
    lambda x, k: x[TABLE] * k,
    lambda x, k: jnp.append(k[:3] * (x[EDGES[0]] - x[EDGES[1]]) ** 2, x[0]),
    lambda x, k: jnp.zeros(4).at[jnp.asarray([1, 3, 0])].add(x[:3] * k[:3]),
    lambda x, k: x.at[2].set(k[0] * x[1]),
    lambda x, k: jnp.append(jax.lax.dynamic_slice(x, (1,), (2,)), k[:2]),
    lambda x, k: jax.lax.dynamic_update_slice(x * k, k[:2] * x[1:3], (jnp.asarray(1),)),
    lambda x, k: x * jnp.asarray([1, 2, 3, 4])[TABLE].astype(x.dtype) * k,
    lambda x, k: jax.ops.segment_sum(x * k, jnp.asarray([0, 0, 1, 2]), 4),
    lambda x, k: x[jnp.argmax(jax.lax.stop_gradient(k))] * k,
    # order
    lambda x, k: jnp.sort(x) * k,
    lambda x, k: x[jnp.argsort(k)] * k,
    lambda x, k: jnp.append(jax.lax.top_k(x, 2)[0], k[2:]),
    # branches and loops
    lambda x, k: jax.lax.cond(x[0] > 0.1, lambda x: k * x, lambda x: jnp.sin(x) * k, x),
    lambda x, k: jax.lax.switch(jnp.asarray(1), [jnp.sin, lambda x: x * k, jnp.cos], x),
    lambda x, k: jnp.where(x > 0, k * x**2, x**2),
    lambda x, k: jax.lax.scan(lambda c, a: (c + a * jnp.sin(c), c * a), x, k)[0],
    lambda x, k: jax.lax.fori_loop(0, 3, lambda i, y: 0.9 * y + 0.1 * k * jnp.sin(y), x),
    lambda x, k: x * k * jax.lax.while_loop(lambda c: c < 5.0, lambda c: c + 1.0, 1.0),
    lambda x, k: jax.vmap(lambda a, b: a * jnp.exp(-b * a * a))(x, k),
    lambda x, k: jax.lax.associative_scan(jnp.add, x * k),
    # linear algebra, Fourier transforms, complex numbers
    lambda x, k: jnp.linalg.cholesky(MATRIX + jnp.outer(x, x)) @ k,
    lambda x, k: jnp.linalg.solve(MATRIX + jnp.diag(k * x**2), x),
    lambda x, k: jnp.linalg.eigvalsh(MATRIX + np.diag([0.0, 1, 2, 3]) + 0.1 * jnp.outer(x * k, x * k)),
    lambda x, k: linalg.solve_triangular(jnp.tril(MATRIX), x * k, lower=True),
    lambda x, k: jnp.abs(jnp.fft.fft(x) * (1 + k)) ** 2 / 4,
    lambda x, k: jnp.fft.irfft(jnp.fft.rfft(x) * jnp.exp(1j * k[0]), n=4),
    lambda x, k: jnp.real((x + 1j * k) ** 3),
    # functions with rules, in functions, recomputed
    lambda x, k: ruled(x * k),
    lambda x, k: pulled(x) * k,
    lambda x, k: jax.jit(lambda x: jax.jit(jnp.cos)(x) * k)(x),
    lambda x, k: jax.checkpoint(lambda x: jnp.sin(k * jnp.sin(x)))(x),
    # special functions and networks
    lambda x, k: special.erf(k * x) + special.i0e(x),
    lambda x, k: special.gammaln(2 + x * x) * k,
    lambda x, k: jax.nn.softmax(k * x) + special.logsumexp(x),
    lambda x, k: jnp.tanh((jnp.outer(k, jnp.arange(4.0) / 4) + 0.1) @ x + 0.1),
    lambda x, k: jax.nn.gelu(k * x) + jax.nn.silu(x),
    # constants, shapes, arithmetic
    lambda x, k: k * x * (jnp.asarray(OUTER) - jnp.asarray(INNER)) + jnp.asarray(INNER) / jnp.asarray(OUTER),
    lambda x, k: jnp.convolve(x, k[:3], mode="same") + jnp.roll(x, 1),
    lambda x, k: jnp.pad(jnp.diff(x) ** 2 * k[:3], (0, 1)) + jnp.pad(x, 2)[1:5],
    lambda x, k: (x.reshape(2, 2) @ k.reshape(2, 2)).T.ravel() + jnp.cumsum(x),
    lambda x, k: jnp.clip(x, -0.5, 0.5) * k + jnp.minimum(x, k),
    lambda x, k: (1 + x * x) ** k + (2 + x) ** -3 + k / (2 + x) + jnp.arctan2(x, 1 + k),
    lambda x, k: jnp.sin(k * x) * jnp.cos(k * x) + jnp.cos(k * x) - jnp.sin(-k * x),
    lambda x, k: x * k * (1 + 0.1 * jax.random.normal(jax.random.key(3), (4,))),
    lambda x, k: jnp.interp(x, np.linspace(-2, 2, 9), np.cos(np.linspace(-2, 2, 9))) * k,
)


class Potential(eg.SeparableHamiltonian):
    """A sum over some operations on the state."""

    k: jax.Array
    chosen: tuple[int, ...] = eqx.field(static=True)

    def kinetic(self, t, p):
        return 0.5 * (jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 2))

    def potential(self, t, q, u):
        x = jnp.append(q["a"], q["b"].ravel())
        total = jnp.sum(x**2) - jnp.sum(u * x)
        for i in self.chosen:
            y = OPERATIONS[i](x, self.k)
            total += 0.1 * jnp.sum(jnp.sin(y) + 0.1 * y**2)
        return total


class Joint(eg.Hamiltonian):
    """The same terms in one energy that does not separate."""

    parts: Potential

    def __call__(self, t, q, p, u):
        return (1 + 0.1 * jnp.sum(q["a"]) ** 2) * self.parts.kinetic(t, p) + self.parts.potential(t, q, u)


# Compilation dominates: implicit steps, and rules that run as another one, get few operations.
ORDER = tuple(map(int, np.random.default_rng(0).permutation(len(OPERATIONS))))
DRAWS = (
    (eg.Leapfrog(), ORDER[:16], [eg.Echo()]),
    (eg.Leapfrog(), ORDER[16:31], [eg.Echo()]),
    (eg.Yoshida(8), ORDER[31:], [eg.Echo()]),
    (eg.ImplicitMidpoint(), (0, 2, 8, 27, 36), [eg.Echo()]),
    (eg.VelocityVerlet(), (1, 7, 9, 14, 30, 42), [eg.Glep(), eg.Echo()]),
)


@pytest.mark.parametrize(("integrator", "chosen", "rules"), DRAWS, ids=map(str, range(len(DRAWS))))
def test_echo_and_glep_are_backprop(integrator, chosen, rules, caplog):
    rng = np.random.default_rng(len(chosen))
    a, b, c, d = (jnp.asarray(0.4 * rng.normal(size=2)) for _ in range(4))
    system = Potential(jnp.asarray(rng.uniform(0.5, 1.5, size=4)), chosen)
    if isinstance(integrator, eg.ImplicitMidpoint):
        system = Joint(system)
    point = system, {"a": a, "b": b[:, None]}, {"a": c, "b": d[:, None]}, jnp.asarray(0.2 * rng.normal(size=(3, 4)))

    def loss(point, gradient):
        system, q, p, u = point
        start = eg.InitialValue(q, p)
        options = {"dt": 0.05, "integrator": integrator, "gradient": gradient, "throw": False}
        sol = eg.solve(system, start, u, cost=lambda t, q, p: jnp.sum(jnp.sin(q["a"]) * p["a"]), **options)
        return jnp.sum(sol.q["a"] ** 2) + jnp.sum(sol.p["b"] * sol.q["b"]) + sol.cost

    with caplog.at_level(logging.WARNING, "echograd"), jax.numpy_dtype_promotion("standard"):
        slope = eqx.filter_jit(lambda point: [eqx.filter_grad(loss)(point, rule) for rule in [eg.Backprop(), *rules]])
        expected, *found = slope(point)
    assert not caplog.records  # every loop could be arranged
    for rule in found:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10), rule, expected)
