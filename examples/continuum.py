# %% [markdown]
# # The continuum of boundary conditions
#
# Generalized Lagrangian equilibrium propagation gives a learning rule for every boundary condition. When is it exact?
# This example follows two one-parameter families of conditions,
#
# * from an initial value to fixed ends: q₀ given, and (1 - s) p₀ + s q_N given;
# * from a symmetric to a non-symmetric Robin condition: p₀ = (S + s A) q₀ + b, p_N = S q_N + b', A antisymmetric;
#
# and nudges each problem twice: under the same condition, and under its dual. The defect is the size of the symplectic
# form on the variations that the condition leaves free. The theorem: nudging under the same condition is exact if and
# only if the defect is zero; nudging under the dual is always exact. `--quick` takes a few conditions, without a plot.

# %%
import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import echograd as eg

jax.config.update("jax_enable_x64", True)


class Pair(eg.SeparableHamiltonian):
    """Two masses with a spring to the wall each, and a hardening spring between them."""

    mass: jax.Array
    spring: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.spring * q**2) + 0.3 * (q[1] - q[0]) ** 4


QUICK = "--quick" in sys.argv
DT, STEPS = 0.2, 10
pair = Pair(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.5]))
path = eg.solve(pair, eg.InitialValue(q=jnp.array([0.7, -0.3]), p=jnp.array([0.2, 0.5])), dt=DT, steps=STEPS)
q0, p0, q1, p1 = path.q[0], path.p[0], path.q[-1], path.p[-1]
ends = jnp.concatenate([q0, p0, q1, p1])

one, zero = jnp.eye(2), jnp.zeros((2, 2))
S, A = jnp.array([[0.4, 0.1], [0.1, -0.2]]), jnp.array([[0.0, 1.0], [-1.0, 0.0]])


def towards_fixed_ends(s):
    rows = jnp.block([[one, zero, zero, zero], [zero, (1 - s) * one, s * one, zero]])
    return eg.LinearBoundary(rows, rows @ ends)


def towards_a_skew_end(s):
    rows = jnp.block([[-(S + s * A), one, zero, zero], [zero, zero, -S, one]])
    return eg.LinearBoundary(rows, rows @ ends)


# %%
@eqx.filter_jit
def gradients(pair, boundary):
    """Return the gradient of a running cost: by implicit differentiation, and nudged under both conditions."""

    def cost(pair, rule):
        return eg.solve(
            pair,
            boundary,
            dt=DT,
            steps=STEPS,
            guess=(q0, p0),
            gradient=rule,
            cost=lambda t, q, p: jnp.sum(jnp.sin(q) * p) + q[0] ** 2,
        ).cost

    rules = eg.Backprop(), eg.SameBoundary(), eg.Glep()
    return [jnp.concatenate(jax.tree.leaves(eqx.filter_grad(cost)(pair, rule))) for rule in rules]


def walk(family, values):
    table = []
    for s in values:
        boundary = family(s)
        exact, same, dual = gradients(pair, boundary)
        size = jnp.linalg.norm(exact)
        row = s, eg.defect(boundary), jnp.linalg.norm(same - exact) / size, jnp.linalg.norm(dual - exact) / size
        table.append([float(x) for x in row])
    return np.array(table)


values = np.concatenate([[0.0], np.linspace(0.05, 0.95, 2 if QUICK else 10), [1.0]])
families = {
    "initial value → fixed ends": walk(towards_fixed_ends, values),
    "symmetric → non-symmetric Robin": walk(towards_a_skew_end, values),
}
for title, table in families.items():
    print(f"\n{title}\n     s   defect   error, same   error, dual")
    for s, defect, same, dual in table:
        print(f"  {s:.2f}   {defect:6.3f}   {same:11.1e}   {dual:11.1e}")
    defect, same, dual = table[:, 1], table[:, 2], table[:, 3]
    assert np.all(dual < 1e-9)
    assert np.all((same < 1e-9) == (defect < 1e-9))

# %% [markdown]
# ## The equations, under two contrasting conditions
#
# With the discrete Lagrangian of a step, L(a, b), and the cost c, the equations at the inner nodes are the same,
#
#     D₂L(qₖ₋₁, qₖ) + D₁L(qₖ, qₖ₊₁) + β c'(qₖ) = 0,   k = 1 … N-1.
#
# The error of the gradient is the boundary residual [d_β p · d_θ q - d_θ p · d_β q] from 0 to N.
#
# |                  | initial value                          | fixed ends                     |
# |------------------|----------------------------------------|--------------------------------|
# | free problem     | q₀, p₀ given                           | q₀, q_N given                  |
# | d_θ at the ends  | d_θ q₀ = d_θ p₀ = 0                    | d_θ q₀ = d_θ q_N = 0           |
# | nudged, same     | q₀, p₀ given                           | q₀, q_N given                  |
# | residual         | d_β p_N · d_θ q_N - d_θ p_N · d_β q_N  | 0                              |
# | nudged, dual     | q_N, p_N as in the free run            | q₀, q_N given                  |
# | residual         | 0                                      | 0                              |
# | computed by      | a run back: the echo                   | a two-point problem            |
#
# To compute the residual of the first column takes d_θ z_N, one forward sensitivity for every parameter. Here it is
# measured instead:

# %%
for name, boundary in {"initial value": towards_fixed_ends(0.0), "fixed ends": towards_fixed_ends(1.0)}.items():
    exact, same, dual = gradients(pair, boundary)
    print(f"\n{name}")
    for title, numbers in {"gradient": exact, "residual, same": exact - same, "residual, dual": exact - dual}.items():
        print(f"  {title:<15}{numbers}")

# %%
try:
    from echograd import plot
except ModuleNotFoundError:
    plot = None  # the picture needs the `plot` extra

if plot is not None and not QUICK:
    with plot.style() as colours:
        figure, axes = plot.figure(9, 3.6, columns=2)
        for ax, (title, table) in zip(axes, families.items(), strict=True):
            shown = np.maximum(table, 1e-16)
            ax.semilogy(table[:, 0], shown[:, 1], "--", label="defect")
            ax.semilogy(table[:, 0], shown[:, 2], "o-", label="error, nudged under the same condition")
            ax.semilogy(table[:, 0], shown[:, 3], "s-", label="error, nudged under the dual condition")
            ax.set_title(title)
            ax.set_xlabel("s")
            ax.set_ylim(1e-17, 30)
        axes[0].legend(loc="center left")
        out = pathlib.Path("continuum.png")
        out.write_bytes(plot.png(figure))
        print(f"\nWritten: {out}")
