# %% [markdown]
# # Digits learned by equilibrium propagation
#
# A Hopfield network with one hidden layer relaxes to a state of minimal energy. It is nudged towards the right answer
# and away from it, relaxes again each time, and learns from the difference: equilibrium propagation. The images are
# MNIST if its four files are in the data folder (see `echograd.workbench.data.load`), and small drawn digits otherwise.

# %%
import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import echograd as eg
from echograd.workbench.data import load

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--hidden", type=int, default=512)
parser.add_argument("--batch", type=int, default=50)
parser.add_argument("--rate", type=float, default=1e-3)
parser.add_argument("--beta", type=float, default=1.0)
parser.add_argument("--held-out", type=float, default=1 / 6, help="share of the training cases to validate with")
parser.add_argument("--quick", action="store_true", help="a few seconds with drawn digits, for tests")
options, _ = parser.parse_known_args()
if options.quick:
    options.epochs, options.hidden, options.rate = 2, 64, 1e-2


# %%
def drawn_digits(cases, seed):
    """Return digits of 5 by 3 dots on a field of 7 by 5, at random places and with noise, and their labels."""
    rows = [
        "111101101101111",
        "010110010010111",
        "111001111100111",
        "111001111001111",
        "101101111001001",
        "111100111001111",
        "111100111101111",
        "111001010010010",
        "111101111101111",
        "111101111001111",
    ]
    shapes = np.array([[int(dot) for dot in row] for row in rows], np.float32).reshape(10, 5, 3)
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=cases)
    images = np.zeros((cases, 7, 5), np.float32)
    for image, label, top, left in zip(
        images, labels, rng.integers(3, size=cases), rng.integers(3, size=cases), strict=True
    ):
        image[top : top + 5, left : left + 3] = shapes[label]
    return np.clip(images + 0.2 * rng.normal(size=images.shape), 0, 1).astype(np.float32).reshape(cases, 35), labels


try:
    if options.quick:
        raise FileNotFoundError("--quick")
    mnist = load("mnist")
    train = mnist.train.inputs[:, :, 0], mnist.train.targets
    test = mnist.test.inputs[:, :, 0], mnist.test.targets
    print("MNIST")
except FileNotFoundError as missing:
    print(f"Drawn digits: {missing}")
    train, test = drawn_digits(6_000, 0), drawn_digits(1_000, 1)

# Choices may use the validation cases, which are held out from training. The test cases are used once, at the end.
kept = round(len(train[0]) * (1 - options.held_out))
train, validation = tuple(x[:kept] for x in train), tuple(x[kept:] for x in train)

# %% [markdown]
# Clipped units at a bound do not respond to an infinitesimal nudge, so a network that starts with many of them may not
# learn. A finite nudge moves them off their bounds, as it would in a machine. The cost is summed over the batch, as the
# energies are, so every digit is nudged with full strength.

# %%
net = eg.nn.HopfieldNet([train[0].shape[1], options.hidden, 10], key=jax.random.key(0))
solver = eg.LayerwiseRelaxation(tolerance=1e-3, max_steps=100)


def settled(net, images, gradient=None):
    """Return the output units at rest. It does not matter if a few units of a batch still move."""
    return net.rest(images, gradient=gradient, solver=solver, throw=False).state[-1]


def cost(net, images, labels, gradient):
    return 0.5 * jnp.sum((settled(net, images, gradient) - jax.nn.one_hot(labels, 10)) ** 2)


batches = len(train[0]) // options.batch
rate = optax.cosine_decay_schedule(options.rate, options.epochs * batches)
optimiser = optax.adam(rate)


@eqx.filter_jit
def step(net, moments, images, labels):
    value, slope = eqx.filter_value_and_grad(cost)(net, images, labels, eg.EP(eg.Symmetric(options.beta)))
    change, moments = optimiser.update(slope, moments)
    return eqx.apply_updates(net, change), moments, value


@eqx.filter_jit
def wrong(net, images, labels):
    return jnp.sum(jnp.argmax(settled(net, images), -1) != labels)


def error(net, images, labels, size=500):
    starts = range(0, len(images), size)
    return sum(int(wrong(net, images[i : i + size], labels[i : i + size])) for i in starts) / len(images)


# %% [markdown]
# First check the gradient: with a small nudge it agrees with implicit differentiation. (Only to a few digits, because
# the network runs in float32.)

# %%
sample = train[0][: options.batch], train[1][: options.batch]
fine = eg.LayerwiseRelaxation(max_steps=2_000)


def small(net, gradient):
    rest = net.rest(sample[0], gradient=gradient, solver=fine).state[-1]
    return 0.5 * jnp.sum((rest - jax.nn.one_hot(sample[1], 10)) ** 2)


def flat(gradient):
    leaves = jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(small))(net, gradient))
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


exact = flat(eg.Implicit())
kinds = ("symmetric", eg.EP(eg.Symmetric(1e-3))), ("infinitesimal", eg.EP())
for name, gradient in kinds[: 1 if options.quick else 2]:
    found = flat(gradient)
    cosine = found @ exact / jnp.linalg.norm(found) / jnp.linalg.norm(exact)
    print(f"{name} nudge against implicit differentiation: cosine {cosine:.5f}")
    assert cosine > 0.98

# %%
moments = optimiser.init(eqx.filter(net, eqx.is_array))
order = np.random.default_rng(0)
begun = time.perf_counter()
for epoch in range(options.epochs):
    costs = 0.0
    for chosen in np.array_split(order.permutation(batches * options.batch), batches):
        net, moments, value = step(net, moments, train[0][chosen], train[1][chosen])
        costs += float(value)
    seconds = time.perf_counter() - begun
    mean, held_out = costs / (batches * options.batch), 100 * error(net, *validation)
    print(f"epoch {epoch + 1}: cost {mean:.5f}, validation error {held_out:.2f} %, {seconds:.0f} s")
final = error(net, *test)
print(f"test error {100 * final:.2f} %")
assert final < (0.5 if options.quick else 0.1)
