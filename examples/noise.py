# %% [markdown]
# # Noise: exact gradients if it is replayed, bias and variance if it is not
#
# A random force shakes a chain of pendulums, as in a Langevin equation. If the force is recorded and replayed backwards
# during the echo, the machine still runs back along its own path. The echo then gives the exact gradient of this
# realisation: the *pathwise* gradient. With new noise, the echo runs back along another path. The last section measures
# the resulting error.

# %%
import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import echograd as eg
from echograd.gradients import AbstractNudgedGradient

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="fewer realisations, for tests")
options, _ = parser.parse_known_args()
SAMPLES = 256 if options.quick else 1024

UNITS, STEPS, DT = 4, 200, 0.05


class Pendulums(eg.SeparableHamiltonian):
    gravity: jax.Array
    bond: jax.Array

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        swing = jnp.sum(self.gravity * (1 - jnp.cos(q)))
        return swing + 0.5 * jnp.sum(self.bond * jnp.diff(q) ** 2) - jnp.sum(u * q)


chain = Pendulums(jnp.linspace(0.8, 1.2, UNITS), jnp.full(UNITS - 1, 0.5))
start = eg.InitialValue(q=jnp.asarray([0.8, -0.3, 0.1, 0.4]), p=jnp.zeros(UNITS))
shakes = jax.random.normal(jax.random.key(0), (STEPS, UNITS)) / jnp.sqrt(DT)  # white noise of unit strength


def cost(params, gradient, shakes=shakes):
    """Return the cosine of the angle between the last and the first pendulum at the end, under trainable noise."""
    system, amplitude = params
    sol = eg.solve(system, start, amplitude * shakes, dt=DT, gradient=gradient, save=eg.FinalNode())
    return jnp.cos(sol.q[-1] - sol.q[0])


# %% [markdown]
# ## Recorded and replayed: the exact pathwise gradient
#
# The noise is an input like any other. It may have parameters: here its amplitude is trained with the system.

# %%
params = (chain, jnp.asarray(0.3))
report = eg.check_gradients(cost, params)
print(report.table())
replay_error = report.worst
assert report.ok(1e-9)

# %% [markdown]
# ## The mean over the noise
#
# Pathwise gradients average to the gradient of the mean cost: here over 256 realisations, all in one `vmap`, against
# a finite difference of the mean over the same realisations.

# %%
realisations = jax.random.normal(jax.random.key(1), (256, STEPS, UNITS)) / jnp.sqrt(DT)


@jax.jit
def mean_cost(amplitude):
    return jnp.mean(jax.vmap(lambda shakes: cost((chain, amplitude), eg.Echo(), shakes))(realisations))


slope, step = jax.grad(mean_cost)(0.3), 1e-4
difference = (mean_cost(0.3 + step) - mean_cost(0.3 - step)) / (2 * step)
print(f"\nd<C>/d(amplitude): echoes {slope:.8f}, difference {difference:.8f}")
assert abs(slope - difference) < 1e-6

# %% [markdown]
# ## New noise in the echo
#
# Now an additional, unrecorded force shakes the echo. Its strength is relative to the recorded force. To first order
# the readings change at random, which averages out: the deviation grows in proportion to the strength. The bias does
# not average out, and grows with the square. (For noise of the instrument that reads an echo see `eg.nudge_sweep`.)


# %%
class ShakenEcho(AbstractNudgedGradient):
    """An echo with independent noise added to the inputs."""

    echo: eg.Echo
    strength: jax.Array
    key: jax.Array

    @property
    def nudge(self):
        return self.echo.nudge

    def prepared(self, problem, z0):
        return self.echo.prepared(problem, z0)

    def read_run(self, wanted, rest, course, bar):
        u = rest.given.u
        shaken = u + self.strength * jax.random.normal(self.key, u.shape, u.dtype)
        rest = eqx.tree_at(lambda problem: problem.given.u, rest, shaken)
        return self.echo.read_run(wanted, rest, course, bar)

    def run_two_point(self, *arguments):
        return self.echo.run_two_point(*arguments)


def flat(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


@jax.jit
def shaken_gradients(strength, keys):
    def one(key):
        gradient = ShakenEcho(eg.Echo(retrace_tolerance=float("inf")), strength, key)
        return flat(eqx.filter_grad(lambda system: cost((system, 0.3), gradient))(chain))

    return jax.vmap(one)(keys)


exact = flat(eqx.filter_grad(lambda system: cost((system, 0.3), eg.Echo()))(chain))
size = float(jnp.linalg.norm(exact))
keys = jax.random.split(jax.random.key(2), SAMPLES)
rows = []
print(f"\n{'strength':>9} {'bias':>9} {'deviation':>9} {'cosine':>9}   of the gradient, relative to the exact one")
for relative in (0.01, 0.1, 0.2, 0.4, 1.0):
    # Every noise and its opposite: their mean cancels the terms that are linear in the noise, and shows the bias.
    pairs = np.stack([shaken_gradients(sign * 0.3 * relative / np.sqrt(DT), keys) for sign in (1, -1)])
    found, means = pairs.reshape(-1, exact.size), pairs.mean(0)
    left = ((means - means.mean(0)) ** 2).sum() / (len(means) - 1) / len(means)  # variance of the mean of means
    bias = np.sqrt(max(((means.mean(0) - exact) ** 2).sum() - left, 0)) / size
    variance = ((found - found.mean(0)) ** 2).sum() / (len(found) - 1)
    deviation = np.sqrt(variance) / size
    cosine = np.mean(found @ exact / np.linalg.norm(found, axis=1)) / size
    rows.append((relative, bias, deviation, cosine))
    print(f"{relative:9.2f} {bias:9.1e} {deviation:9.1e} {cosine:9.4f}")

deviations = np.asarray([row[2] for row in rows])
deviation_slope = np.log(deviations[1] / deviations[0]) / np.log(10)
bias_slope = np.log(rows[3][1] / rows[2][1]) / np.log(2)
print(f"deviation ~ strength^{deviation_slope:.2f}, bias ~ strength^{bias_slope:.2f}")
assert abs(deviation_slope - 1) < 0.15
assert 1.5 < bias_slope < 2.5
