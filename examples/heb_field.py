# %% [markdown]
# # A wave field learns by its own motion
#
# A picture enters a nonlinear medium as a wave (a nonlinear Schroedinger field), together with a uniform beam, and
# spreads in a potential. The intensities in the corners at the end are the answer of the medium. The potential learns:
# it moves too, with a large mass and a momentum at every point. One lesson is a run forward, a kick of the outgoing
# wave, time reversal, a run back, and friction (Hamiltonian echo backpropagation). Every update is compared with
# gradient descent by backpropagation through a simulation of the medium.
#
# The pictures are power spectra of ten seconds of real ECGs, which come with the package. The question is whether the
# atria fibrillate, in patients that were not used for training. With `--data mnist` the pictures are the digits 0 to 3,
# if the four files of MNIST are in the data folder (see `echograd.workbench.data.load`).

# %%
import argparse
import pathlib
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import echograd as eg
from echograd.workbench.data import load

jax.config.update("jax_enable_x64", True)

parser = argparse.ArgumentParser()
parser.add_argument("--data", choices=("ecg", "mnist"), default="ecg")
parser.add_argument("--lessons", type=int, default=2000)
parser.add_argument("--rate", type=float, default=0.3, help="learning rate at the beginning; it falls to a tenth")
parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
options, _ = parser.parse_known_args()
if options.quick:
    options.lessons = 200

SIDE = 16


def rhythms():
    """Return power spectra of ten seconds of ECG, 64 bands as 8 by 8 points, and whether the atria fibrillate."""
    ecg = load("ecg-afib-envelope")

    def spectra(split):
        signals = split.inputs[:, :, 0] - split.inputs[:, :, 0].mean(1, keepdims=True)
        power = np.log(1e-3 + np.abs(np.fft.rfft(signals)) ** 2)
        return power[:, 1:129].reshape(-1, 64, 2).mean(2)

    known = spectra(ecg.train)
    scaled = [(spectra(split) - known.mean(0)) / known.std(0) for split in (ecg.train, ecg.test)]
    images = [0.1 * np.clip(x, -3, 3).reshape(-1, 8, 8) for x in scaled]
    return (images[0], ecg.train.targets), (images[1], ecg.test.targets)


def digits():
    """Return the digits 0 to 3 at half their resolution with their labels, for training and held out."""
    mnist = load("mnist")

    def side(split, cases):
        kept = np.flatnonzero(split.targets < 4)[:cases]
        images = split.inputs[kept].reshape(-1, 14, 2, 14, 2).mean((2, 4))
        return images / np.linalg.norm(images, axis=(1, 2), keepdims=True), split.targets[kept]

    return side(mnist.train, 4_000), side(mnist.test, 1_000)


def entering(images):
    """Return the wave of an image in the middle of the medium, plus the beam, a quarter turn ahead in phase."""
    margin = (SIDE - images.shape[1]) // 2
    waves = np.pad(images.astype(float), ((0, 0), (margin, margin), (margin, margin))) + 1j / SIDE
    return jnp.asarray(waves / np.linalg.norm(waves, axis=(1, 2), keepdims=True))


train, held_out = rhythms() if options.data == "ecg" else digits()
classes = int(train[1].max()) + 1
if options.quick:
    held_out = tuple(x[::4] for x in held_out)
(train, labels), (held_out, truth) = ((entering(images), labels) for images, labels in (train, held_out))

# %% [markdown]
# ## The medium
#
# The total intensity is conserved, so the intensities in the corners are fractions. Multiples of them are the logits.

# %%
DT, STEPS, ETA = 0.2, 40, 1e-5


def medium(potential):
    return eg.systems.NonlinearSchroedinger(potential, nonlinearity=-4.0)


def beliefs(q, p):
    intensity = jnp.abs(eg.wave(q, p)) ** 2
    half = SIDE // 2
    corners = intensity.reshape(2, half, 2, half).sum((1, 3)).ravel()
    return 16 * corners[:classes]


def cost(q, p, label):
    """Return the cross entropy. Only this is computed outside the medium."""
    logits = beliefs(q, p)
    return jax.nn.logsumexp(logits) - logits[label]


start = jnp.asarray(0.3 * np.random.default_rng(0).normal(size=(SIDE, SIDE)))
moving = eg.MovingParameters(medium(start), mass=1e6, where=lambda medium: medium.potential)


def learned(field, case):
    """Return the field after one lesson: a step of 2η/m down the gradient, in the averaged form."""
    wave, label, rate = case
    machine = eg.SelfLearningMachine(moving, cost, dt=DT, steps=STEPS, eta=ETA, mass=2 * ETA / rate)
    lesson = machine.learn(field, eg.canonical(wave), label)
    return lesson.field, (lesson.cost, lesson.retrace)


def leaving(potential, wave, gradient):
    start = eg.InitialValue(*eg.canonical(wave))
    sol = eg.solve(medium(potential), start, dt=DT, steps=STEPS, save=eg.FinalNode(), gradient=gradient)
    return sol.q, sol.p


def descended(potential, case):
    """Return the potential after one step of gradient descent by backpropagation."""
    wave, label, rate = case
    value, slope = jax.value_and_grad(lambda v: cost(*leaving(v, wave, eg.Backprop()), label))(potential)
    return potential - rate * slope, value


@eqx.filter_jit
def taught(step, state, cases):
    return jax.lax.scan(step, state, cases)


@eqx.filter_jit
def answers(potential, waves):
    return jax.vmap(lambda wave: jnp.argmax(beliefs(*leaving(potential, wave, eg.Backprop()))))(waves)


def score(potential):
    """Return the balanced accuracy on held-out cases; chance is 1/classes."""
    found = np.asarray(answers(potential, held_out))
    return np.mean([np.mean(found[truth == k] == k) for k in range(classes)])


# %% [markdown]
# ## Lessons
#
# Both get the same cases in the same order, one per update, with equally many of each class.

# %%
rng = np.random.default_rng(0)
shown = np.stack([rng.choice(np.flatnonzero(labels == k), options.lessons // classes) for k in range(classes)], 1)
shown = rng.permuted(shown, axis=1).ravel()
rates = options.rate * np.linspace(1, 0.1, len(shown))
field, potential = (start, jnp.zeros_like(start)), start
curve, retrace, seconds = [(0, *2 * [score(start)])], 0.0, np.zeros(2)
for block in np.array_split(np.arange(len(shown)), 2 if options.quick else 16):
    cases = train[shown[block]], jnp.asarray(labels[shown[block]]), jnp.asarray(rates[block])
    times = [time.perf_counter()]
    field, (_, error) = jax.block_until_ready(taught(learned, field, cases))
    times.append(time.perf_counter())
    potential, _ = jax.block_until_ready(taught(descended, potential, cases))
    times.append(time.perf_counter())
    seconds += np.diff(times)
    retrace = max(retrace, float(error.max()))
    curve.append((block[-1] + 1, score(field[0]), score(potential)))
    print("lesson {:4d}: balanced accuracy, held out, {:.4f} by echoes, {:.4f} by backpropagation".format(*curve[-1]))
print(f"{seconds[0]:.0f} s of lessons, {seconds[1]:.0f} s of backpropagation; retrace error at most {retrace:.1e}")
_, by_echoes, by_backprop = curve[-1]
chance = 1 / classes
assert by_echoes > chance + (0.1 if options.quick else 0.2)
assert abs(by_echoes - by_backprop) < 0.01
assert retrace < 0.01

# %%
try:
    from echograd import plot
except ModuleNotFoundError:
    plot = None  # the picture needs the `plot` extra

if plot is not None:
    with plot.style() as colours:
        figure, axes = plot.figure(9, 2.6, columns=4, width_ratios=[2.2, 1, 1, 1])
        lessons, echoes, backprop = np.array(curve).T
        axes[0].plot(lessons, backprop, "--", color=colours.backprop, lw=2.5, label="backpropagation")
        axes[0].plot(lessons, echoes, "o-", color=colours.echo, label="echoes of the medium")
        axes[0].axhline(chance, color=colours.muted, lw=0.9, ls=(0, (1, 2)), label="chance")
        axes[0].set(title="Balanced accuracy, held out", xlabel="lesson")
        axes[0].legend()
        wave = held_out[0]
        final = eg.wave(*leaving(field[0], wave, eg.Backprop()))
        for ax, title, picture in zip(
            axes[1:],
            ("The potential", "Incoming wave", "Outgoing wave"),
            (field[0], jnp.abs(wave) ** 2, jnp.abs(final) ** 2),
            strict=True,
        ):
            ax.imshow(picture, cmap=colours.scale)
            ax.set_title(title)
            ax.set_axis_off()
        for line in (axes[3].axhline, axes[3].axvline):
            line(SIDE / 2 - 0.5, color=colours.nudge, lw=0.8)
        out = pathlib.Path("heb_field.png")
        out.write_bytes(plot.png(figure))
        print(f"Written: {out}")
