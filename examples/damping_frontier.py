# %% [markdown]
# # Damping: where a plain echo fails, and what stays exact
#
# A chain of masses loses energy at a rate γ. An echo needs a machine that runs back along its own path, and a lossy one
# does not. How much damping spoils the gradient, and which remedies work up to which damping?
#
# * **plain echo**: the lossy machine, with momenta flipped, nudged, and run again;
# * **gain without weights**: the machine with its damping turned into gain, so that it runs back;
# * **`MassDamped`**: the same, with nudges and readings weighted by exp(γt): for damping in proportion to the mass;
# * **`Envelope`**: the same motion in x = exp(γt/2) q, an undamped machine whose springs change in time;
# * **`Reciprocal`**: the lossy machine, starting at rest and driven by the reversed error at full amplitude: for linear
#   forces and any symmetric damping.
#
# Each is compared with backpropagation through the same discrete map, for linear and for hardening springs. In one more
# row the damping is in proportion to the stiffness and not to the mass. With linear springs `Reciprocal` is then exact.
# With hardening springs no method is, and the library raises an error. `--quick` takes a few rates and draws nothing.

# %%
import pathlib
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import echograd as eg

jax.config.update("jax_enable_x64", True)

QUICK = "--quick" in sys.argv
MASSES, STEPS, DT = 4, 200, 0.1
SPAN = STEPS * DT
DAMPING = np.geomspace(0.01, 20, 4 if QUICK else 18)  # γT


class Chain(eg.SeparableHamiltonian):
    """Masses between two walls, with a drive on the first mass."""

    mass: jax.Array
    spring: jax.Array
    hardening: jax.Array

    def kinetic(self, t, p):
        return jnp.sum(p**2 / (2 * self.mass))

    def potential(self, t, q, u):
        stretch = jnp.diff(q, prepend=0.0, append=0.0)
        return jnp.sum(self.spring * (stretch**2 / 2 + self.hardening * stretch**4 / 4)) - u * q[0]


MASS, SPRING = jnp.asarray([1.0, 2.0, 0.5, 1.5]), jnp.asarray([1.0, 0.6, 0.8, 1.2, 0.7])
Q0, P0 = jnp.asarray([1.0, -0.5, 0.3, 0.8]), jnp.asarray([0.2, 0.4, -0.6, 0.1])
DRIVE = jnp.sin(0.7 * DT * jnp.arange(STEPS))
TARGET = jnp.outer(jnp.cos(0.5 * DT * jnp.arange(STEPS + 1)), jnp.ones(MASSES))


def squared_error(q):
    return 0.5 * jnp.mean((q - TARGET) ** 2)


# %% [markdown]
# ## The remedies, as a user calls them
#
# The parameters are the masses, the springs and the damping rate.


# %%
def mass_damped(params, gradient, hardening):
    mass, spring, rate = params
    system = eg.MassDamped(Chain(mass, spring, hardening), rate)
    sol = eg.solve(system, eg.InitialValue(Q0, P0), DRIVE, dt=DT, gradient=gradient)
    return squared_error(sol.q)


def envelope(params, gradient, hardening):
    mass, spring, rate = params
    system = eg.Envelope(Chain(mass, spring, hardening), rate)
    sol = eg.solve(system, eg.InitialValue(*system.enveloped(0.0, Q0, P0)), DRIVE, dt=DT, gradient=gradient)
    return squared_error(jax.vmap(system.physical)(sol.t, sol.q, sol.p)[0])


def reciprocal(params, gradient, proportional_to_mass):
    mass, spring, rate = params
    stiffness = jnp.diag(spring[:-1] + spring[1:]) - jnp.diag(spring[1:-1], 1) - jnp.diag(spring[1:-1], -1)
    damping = rate * jnp.where(proportional_to_mass, jnp.diag(mass), stiffness)
    system = eg.LinearDamped(mass, damping, stiffness, jnp.eye(MASSES)[:, :1])
    sol = eg.solve(system, eg.InitialValue(Q0, P0), DRIVE[:, None], dt=DT, gradient=gradient)
    return squared_error(sol.q)


# %% [markdown]
# ## The lossy machine itself
#
# This is the same map as `MassDamped`, whose momentum is exp(γt) times this one. The library has no such echo, because
# it is wrong.


# %%
def step(system, u, rate, z):
    """Return the state after one step, and the half-step position and both momenta, where the echo reads."""
    q, p = z
    decay = jnp.exp(-0.5 * rate * DT)
    q, before = q + 0.5 * DT * p / system.mass, p
    p = decay * (decay * p - DT * jax.grad(system.potential, 1)(0.0, q, u))
    return (q + 0.5 * DT * p / system.mass, p), (q, before, p)


def plain_echo(params, hardening, gain=False):
    """Return the gradient with respect to masses and springs from an unweighted echo."""
    mass, spring, rate = params
    system = Chain(mass, spring, hardening)

    def forward(z, u):
        z, _ = step(system, u, rate, z)
        return z, z[0]

    final, path = jax.lax.scan(forward, (Q0, P0), DRIVE)
    nudges = jax.grad(squared_error)(jnp.concatenate([Q0[None], path]))[1:]

    def nudged(beta):
        def back(z, row):
            u, nudge = row
            z, (half, before, after) = step(system, u, -rate if gain else rate, (z[0], z[1] + beta * nudge))

            def reading(system):
                kinetic = 0.5 * (system.kinetic(0.0, before) + system.kinetic(0.0, after))
                return -DT * (kinetic + system.potential(0.0, half, u))

            return z, jax.grad(reading)(system)

        readings = jax.lax.scan(back, (final[0], -final[1]), (DRIVE, nudges), reverse=True)[1]
        return jax.tree.map(lambda x: jnp.sum(x, 0), (readings.mass, readings.spring))

    return jax.jvp(nudged, (0.0,), (1.0,))[1]


# %% [markdown]
# ## Measured


# %%
def flat(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def compared(found, exact):
    found, exact = flat(found), flat(exact)
    size = jnp.linalg.norm(exact)
    return found @ exact / (jnp.linalg.norm(found) * size), jnp.linalg.norm(found - exact) / size


CHAINS = "plain echo", "gain without weights", "MassDamped, Echo()", "Envelope, Echo()"


def chains(rate, hardening):
    """Return cosine and error of the methods in `CHAINS`, for damping in proportion to the mass."""
    params = MASS, SPRING, rate
    exact, echo = (jax.grad(mass_damped)(params, g, hardening) for g in (eg.Backprop(), eg.Echo()))
    enveloped = [jax.grad(envelope)(params, g, hardening) for g in (eg.Echo(), eg.Backprop())]
    spoilt = [compared(plain_echo(params, hardening, gain), exact[:2]) for gain in (False, True)]
    return [*spoilt, compared(echo, exact), compared(*enveloped)]


def matrices(rate, proportional_to_mass):
    params = MASS, SPRING, rate
    return compared(*(jax.grad(reciprocal)(params, g, proportional_to_mass) for g in (eg.Reciprocal(), eg.Backprop())))


# One compiled program for all rates and both kinds of springs, and one for all rates and both damping matrices.
of_chains, of_matrices = (jax.jit(jax.vmap(f, (0, None))) for f in (chains, matrices))
rates = jnp.asarray(DAMPING / SPAN)
measured = {
    "linear springs": {
        **dict(zip(CHAINS, of_chains(rates, 0.0), strict=True)),
        "LinearDamped, Reciprocal()": of_matrices(rates, True),
        "damping in prop. to K": of_matrices(rates, False),
    },
    "hardening springs": dict(zip(CHAINS, of_chains(rates, 0.5), strict=True)),
}

shown = slice(None, None, 1 if QUICK else 3)
found = {}
for title, routes in measured.items():
    print(f"\n{title}\n{'γT':>33}" + "".join(f"{x:9.2g}" for x in DAMPING[shown]))
    for name, route in routes.items():
        cosine, error = found[title, name] = np.asarray(route)
        print(f"{name:>25} cosine " + "".join(f"{x:9.4f}" for x in cosine[shown]))
        print(f"{'':>26} error " + "".join(f"{x:9.1e}" for x in error[shown]))

for (title, name), (cosine, error) in found.items():
    if name in ("plain echo", "gain without weights"):
        assert np.all(error[DAMPING > 1] > 0.1), (title, name)
        assert error[0] < 0.1, (title, name)  # without damping the echo is right
        assert error[1] > 0.7 * DAMPING[1] / DAMPING[0] * error[0], (title, name)
    else:
        assert error.max() < 1e-9, (title, name)
        assert cosine.min() > 1 - 1e-9, (title, name)

# %% [markdown]
# ## The case without a remedy
#
# For hardening springs under damping that is not in proportion to the mass, no gradient on the same hardware exists.
# The library raises an error that says why.


# %%
class Unequal(eg.Dissipative):
    """Hardening springs, and a dashpot at the first mass only."""

    spring: jax.Array

    def inertia(self, v):
        return MASS * v

    def friction(self, v):
        return v.at[1:].set(0.0)

    def force(self, t, q, u):
        return -jax.grad(Chain(MASS, self.spring, 0.5).potential, 1)(t, q, u)


def refused(system):
    return squared_error(eg.solve(system, eg.InitialValue(Q0, P0), DRIVE, dt=DT, gradient=eg.Reciprocal()).q)


try:
    eqx.filter_jit(eqx.filter_grad(refused))(Unequal(SPRING))
except eqx.EquinoxRuntimeError as refusal:
    reason = str(refusal)
    assert "proven impossible" in reason
    print("\nhardening springs, one dashpot:\n" + next(x for x in reason.splitlines() if "Reciprocal:" in x))
else:
    raise AssertionError("nonlinear forces under general damping were not refused")

# %%
try:
    from echograd import plot
except ModuleNotFoundError:
    plot = None  # the picture needs the `plot` extra

if plot is not None and not QUICK:
    looks = {
        "plain echo": ("nudge", "o", "-"),
        "gain without weights": ("nudge", "^", ":"),
        "MassDamped, Echo()": ("echo", "s", "-"),
        "Envelope, Echo()": ("echo", "D", ":"),
        "LinearDamped, Reciprocal()": ("ink", "v", "-"),
    }
    with plot.style() as colours:
        figure, axes = plot.figure(9, 5.4, rows=2, columns=2, sharex=True)
        for column, title in zip(axes.T, measured, strict=True):
            for name, (colour, marker, line) in looks.items():
                if (title, name) not in found:
                    continue
                cosine, error = found[title, name]
                look = {"color": getattr(colours, colour), "marker": marker, "ls": line, "label": name}
                column[0].semilogx(DAMPING, cosine, **look)
                column[1].loglog(DAMPING, np.maximum(error, 1e-17), **look)
            column[0].set_title(f"Cosine with the exact gradient, {title}")
            column[1].set_title("Relative error")
            column[1].set_xlabel("damping, γT")
        axes[1, 0].legend(loc="center left", bbox_to_anchor=(0.0, 0.36))
        out = pathlib.Path("damping.png")
        out.write_bytes(plot.png(figure))
        print(f"\nWritten: {out}")
