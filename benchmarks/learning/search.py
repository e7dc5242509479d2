"""The recorded search for a training recipe: cross-validation within the training cases, never the test cases.

    python -m benchmarks.learning.search FOLDER SET [SET ...] --trial '{"norm": "batch", "patch": 8}'

FOLDER holds the data sets in the layout of the UCR archive. Every trial appends one line to
`benchmarks/learning/search.jsonl`: the settings, and for every set the mean accuracy over the folds at several numbers
of epochs. The loop is short on purpose: what proves useful becomes a setting of `echograd train`.
"""

import argparse
import functools
import json
import pathlib
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import echograd as eg
from echograd.workbench.data import Dataset, load

LOG = pathlib.Path(__file__).parent / "search.jsonl"
DEFAULT: dict[str, Any] = {
    "unit": "damped",
    "hidden": 32,
    "units": 32,
    "blocks": 2,
    "norm": "batch",
    "pooling": "mean_max_deviation",
    "patch": 8,
    "taps": 1,
    "bidirectional": False,
    "dropout": 0.1,
    "angles": [0.01, 2.0],
    "memory": [4, 125],  # steps
    "rate": 1e-2,
    "oscillator_rate": 1.0,  # share of the rate
    "decay": 0.01,
    "batch": 16,
    "steps": 600,
    "crop": 0.8,
    "smoothing": 0.0,
    "jitter": 0.0,
    "scaling": 0.0,
    "average": 0.0,
    "folds": 2,
    "seeds": 1,
    "seed": 0,
}
OSCILLATORS = ("angle", "log_decay", "log_step", "balance")


def build(dataset: Dataset, o: dict[str, Any], seed: int) -> Any:
    """Return an untrained model and the state of its norms."""
    lossy = o["unit"] == "damped"
    return eqx.nn.make_with_state(eg.nn.HSSM)(
        dataset.inputs_dim,
        dataset.classes,
        hidden=o["hidden"],
        units=o["units"],
        blocks=o["blocks"],
        unit=o["unit"],
        norm=o["norm"],
        pooling=o["pooling"],
        patch=o["patch"],
        taps=o["taps"],
        bidirectional=o["bidirectional"],
        dropout=o["dropout"],
        angles=tuple(o["angles"]),
        decays=(1 / o["memory"][1], 1 / o["memory"][0]) if lossy else None,
        key=jax.random.key(seed),
    )


def is_oscillator(path: Any) -> bool:
    """Return whether a leaf is a constant of an oscillator."""
    return getattr(path[-1], "name", None) in OSCILLATORS


def optimiser(o: dict[str, Any]) -> optax.GradientTransformation:
    """Return AdamW with a warm-up and a cosine, and a rate of its own for oscillators."""

    def chain(share: float) -> optax.GradientTransformation:
        rate = optax.warmup_cosine_decay_schedule(0.0, share * o["rate"], o["steps"] // 10, o["steps"])
        return optax.adamw(
            rate,
            weight_decay=o["decay"],
            mask=lambda tree: jax.tree_util.tree_map_with_path(
                lambda path, _: getattr(path[-1], "name", None) in ("weight", "read_in", "read_out"), tree
            ),
        )

    def label(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: "slow" if is_oscillator(path) else "fast", tree)

    both = {"fast": chain(1.0), "slow": chain(o["oscillator_rate"])}
    return optax.chain(optax.clip_by_global_norm(1.0), optax.transforms.partition(both, label))


@functools.cache
def programs(frozen: str) -> Any:
    """Return the compiled training step and the compiled prediction of one trial."""
    o = json.loads(frozen)
    transform = optimiser(o)

    def augmented(x: jax.Array, key: jax.Array) -> jax.Array:
        start, noise, scale = jax.random.split(key, 3)
        if o["crop"] < 1:
            length = int(o["crop"] * x.shape[1])
            starts = jax.random.randint(start, (x.shape[0],), 0, x.shape[1] - length + 1)
            x = jax.vmap(lambda x, s: jax.lax.dynamic_slice_in_dim(x, s, length))(x, starts)
        if o["jitter"]:
            x = x + o["jitter"] * jax.random.normal(noise, x.shape)
        if o["scaling"]:
            x = x * jnp.exp(o["scaling"] * jax.random.normal(scale, (x.shape[0], 1, 1)))
        return x

    @eqx.filter_jit
    def step(carry: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        params, static, average, state, moments = carry
        augment_key, dropout_key = jax.random.split(key)
        x = augmented(x, augment_key)

        def loss(params: Any) -> Any:
            logits, new = eqx.combine(params, static)(x, state, key=dropout_key)
            wanted = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), o["smoothing"])
            return jnp.mean(optax.softmax_cross_entropy(logits, wanted)), new

        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = transform.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, b: o["average"] * a + (1 - o["average"]) * b, average, params)
        return (params, static, average, state, moments), value

    @eqx.filter_jit
    def predict(params: Any, static: Any, state: Any, x: jax.Array) -> jax.Array:
        model = eqx.nn.inference_mode(eqx.combine(params, static))
        return model(x, state)[0]

    return transform, step, predict


def train(dataset: Dataset, o: dict[str, Any], cases: np.ndarray, seed: int, marks: list[int], score: Any) -> list[Any]:
    """Train on some of the training cases, and return the score at every mark (a number of steps)."""
    transform, step, predict = programs(json.dumps(o, sort_keys=True))
    model, state = build(dataset, o, seed)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    x, y = jnp.asarray(dataset.train.inputs), jnp.asarray(dataset.train.targets)
    carry = (params, static, params, state, transform.init(params))
    rng, found, order = np.random.default_rng(seed), [], np.zeros(0, int)
    size = min(o["batch"], len(cases))
    for i in range(max(marks)):
        while len(order) < size:
            order = np.concatenate([order, rng.permutation(cases)])
        batch, order = order[:size], order[size:]
        carry, value = step(carry, x[batch], y[batch], jax.random.fold_in(jax.random.key(seed + 1), i))
        if i + 1 in marks:
            params, _, average, state, _ = carry
            used = average if o["average"] else params
            found.append(score(lambda x, used=used, state=state: predict(used, static, state, x)))
    assert np.isfinite(float(value))
    return found


def in_chunks(predict: Any, x: np.ndarray, size: int = 64) -> np.ndarray:
    """Return logits computed for a few cases at a time, all chunks of one shape."""
    return np.concatenate(
        [np.asarray(predict(jnp.asarray(x[np.arange(i, i + size) % len(x)]))) for i in range(0, len(x), size)]
    )[: len(x)]


def folds_of(targets: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the number of the fold of every case; every class is spread evenly."""
    rng, fold = np.random.default_rng(seed), np.zeros(len(targets), int)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        fold[members] = (np.arange(len(members)) + rng.integers(folds)) % folds
    return fold


def validated(dataset: Dataset, o: dict[str, Any]) -> dict[str, Any]:
    """Return the cross-validated accuracy at a quarter, half and all of the steps."""
    marks = [o["steps"] // 4, o["steps"] // 2, o["steps"]]
    y, right, start = dataset.train.targets, [], time.perf_counter()
    for seed in range(o["seed"], o["seed"] + o["seeds"]):
        fold = folds_of(y, o["folds"], seed)
        correct = np.zeros((len(marks), len(y)))
        for f in range(o["folds"]):
            held = np.flatnonzero(fold == f)

            def score(predict: Any, held: np.ndarray = held) -> np.ndarray:
                return in_chunks(predict, dataset.train.inputs[held]).argmax(1) == y[held]

            for m, hits in enumerate(train(dataset, o, np.flatnonzero(fold != f), seed, marks, score)):
                correct[m, held] = hits
        right.append(correct.mean(1))
    seconds = time.perf_counter() - start
    return {"accuracy": np.round(100 * np.mean(right, 0), 1).tolist(), "marks": marks, "seconds": round(seconds)}


def main() -> None:
    """Run one trial."""
    parser = argparse.ArgumentParser(description="cross-validate one trial of a training recipe")
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--trial", default="{}")
    options = parser.parse_args()
    changes = json.loads(options.trial)
    assert changes.keys() <= DEFAULT.keys(), changes.keys() - DEFAULT.keys()
    o = DEFAULT | changes
    for name in options.sets:
        dataset = load(name, download=False).standardised()
        line = {"set": name, "changes": changes, **validated(dataset, o)}
        print(json.dumps(line), flush=True)
        with LOG.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
