# %% [markdown]
# # Exact gradients of a long simulation, without storing it
#
# A chain of masses has nonlinear springs (Fermi-Pasta-Ulam-Tsingou). How does the squared displacement of its last
# mass, integrated over time, depend on every spring? An echo gives the answer: the machine runs back along its own
# path.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp

import echograd as eg

jax.config.update("jax_enable_x64", True)


class Chain(eg.SeparableHamiltonian):
    stiffness: jax.Array  # array fields are the trainable parameters

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.stiffness * (stretch**2 / 2 + stretch**4 / 4))


chain = Chain(jnp.ones(33))
start = eg.InitialValue(q=0.3 * jnp.sin(jnp.pi * jnp.arange(1, 33) / 33), p=jnp.zeros(32))


# %%
def far_end(system, gradient):
    """Return the squared displacement of the last mass, integrated over time."""
    dt = 0.05
    sol = eg.solve(
        system,
        start,
        dt=dt,
        steps=2000,
        gradient=gradient,
        save=eg.FinalNode(),
        cost=lambda t, q, p: dt * q[-1] ** 2,
    )
    return sol.cost


echo = eqx.filter_jit(eqx.filter_grad(lambda s: far_end(s, eg.Echo())))(chain)
exact = eqx.filter_jit(eqx.filter_grad(lambda s: far_end(s, eg.Backprop())))(chain)
error = jnp.linalg.norm(echo.stiffness - exact.stiffness) / jnp.linalg.norm(exact.stiffness)
print(f"echo against backpropagation: relative difference {error:.1e}")
assert error < 1e-9


# %% [markdown]
# An echo relies on the machine retracing its path. The retrace error measures how exactly it does:

# %%
print(f"retrace error: {eg.retrace_error(chain, start, dt=0.05, steps=2000):.1e}")


# %% [markdown]
# An echo saves memory: the compiled working memory does not grow with the length of the run.


# %%
def working_memory(gradient, steps):
    def loss(stiffness):
        sol = eg.solve(
            Chain(stiffness),
            start,
            dt=0.05,
            steps=steps,
            gradient=gradient,
            save=eg.FinalNode(),
            cost=lambda t, q, p: q[-1] ** 2,
        )
        return sol.cost

    compiled = jax.jit(jax.grad(loss)).lower(chain.stiffness).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e3


sizes = {}
for gradient in (eg.Echo(), eg.Backprop()):
    name = type(gradient).__name__
    sizes[name] = [working_memory(gradient, steps) for steps in (1_000, 16_000)]
    print(f"{name:>9}: {sizes[name][0]:9.1f} kB at 1,000 steps, {sizes[name][1]:9.1f} kB at 16,000")
assert sizes["Echo"][1] < 1.01 * sizes["Echo"][0]
assert sizes["Backprop"][1] > 10 * sizes["Backprop"][0]
