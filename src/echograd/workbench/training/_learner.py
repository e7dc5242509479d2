"""The compiled parts of training: one step, and one batch of predictions."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree

from echograd import ArgumentError
from echograd.nn import HSSM, HopfieldClassifier

from ..data import Batches, Dataset, Split
from ..data._batches import Batch
from ._config import Config, Optimiser
from ._memory import check_memory

try:
    import optax
except ModuleNotFoundError as error:
    if error.name != "optax":
        raise
    raise ModuleNotFoundError("training needs optax: pip install 'echograd[workbench]'", name="optax") from None

# Weight decay acts on matrices only. Constants of oscillators are logits and logarithms, for which 0 is not special.
_DECAYED = ("weight", "read_in", "read_out")
# The constants of oscillators, which have a rate of their own.
_OSCILLATORS = ("angle", "log_decay", "log_step", "balance")
# The fastest initial decay of damped oscillators, per step.
_FASTEST = 0.1


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The sizes of a data set that determine a model.

    Attributes:
        task: classification or regression.
        inputs: number of input channels.
        outputs: number of classes or targets.
        every: number of steps per target; 0 if a whole case has one target.
        length: number of steps of a case.
    """

    task: Literal["classification", "regression"]
    inputs: int
    outputs: int
    every: int
    length: int = 0

    @staticmethod
    def of(dataset: Dataset) -> "Shapes":
        """Return the sizes of a data set, or raise if no model fits its targets."""
        if dataset.task == "classification":
            return Shapes("classification", dataset.inputs_dim, dataset.classes, 0, dataset.length)
        targets = dataset.train.targets.shape[1:]
        if len(targets) <= 1:
            return Shapes("regression", dataset.inputs_dim, targets[0] if targets else 1, 0, dataset.length)
        if len(targets) > 2 or dataset.length // targets[0] < 1 or dataset.length % targets[0]:
            raise ArgumentError(
                f"{dataset.name}: regression targets of a case must have shape (), (outputs,) or (times, outputs), "
                f"where times divides the {dataset.length} steps. They have shape {targets}."
            )
        return Shapes("regression", dataset.inputs_dim, targets[1], dataset.length // targets[0], dataset.length)


Model = HSSM | HopfieldClassifier


class Learner(eqx.Module):
    """All arrays that training changes: parameters, statistics of batch norms, moments of the optimiser."""

    model: Model
    state: eqx.nn.State
    moments: PyTree


def make_model(config: Config, shapes: Shapes) -> tuple[Model, eqx.nn.State]:
    """Return the model of a run before training, and the state of its norms."""
    network = config.network
    if config.crop < 1 and (shapes.every or config.model == "hopfield"):
        raise ArgumentError(
            f"Config: crop={config.crop:g} is for models that give one output for a whole case of any length. Leave "
            "crop out."
        )
    if config.model == "hopfield":
        if shapes.task != "classification":
            raise ArgumentError(
                "Config: model='hopfield' is for classification only. Use model='linear' (--model linear) for "
                "regression."
            )
        return eqx.nn.make_with_state(HopfieldClassifier)(
            [shapes.length * shapes.inputs, *[network.units] * network.blocks, shapes.outputs],
            gradient=config.static_gradient_object(),
            key=_key(config, "weights"),
        )
    return eqx.nn.make_with_state(HSSM)(
        shapes.inputs,
        shapes.outputs,
        hidden=network.hidden,
        units=network.units,
        blocks=network.blocks,
        unit=config.model,
        complex=network.complex,
        norm=network.norm,
        dropout=network.dropout,
        head="regression" if shapes.every else "classification",  # the latter pools over the steps
        pooling=network.pooling,
        every=shapes.every or None,
        patch=network.patch,
        taps=network.taps,
        bidirectional=network.bidirectional,
        angles=network.angles,
        decays=_decay_bounds(config, shapes),
        gradient=config.gradient_object(),
        key=_key(config, "weights"),
    )


def _decay_bounds(config: Config, shapes: Shapes) -> tuple[float, float] | None:
    """Return the bounds of the initial decay rates: by default memories from ten steps to a whole case."""
    if config.model != "damped" or config.network.decays is not None:
        return config.network.decays
    return min(config.network.patch / max(shapes.length, 1), _FASTEST / 2), _FASTEST


def whole_set(config: Config, cases: int, share: int = 1) -> Config:
    """Return the config with batches no larger than the training set.

    Args:
        config: the settings of the run.
        cases: number of training cases.
        share: the number of cases in a batch must be a multiple of this.
    """
    most = -(-cases // share) * share
    return config if config.batch_size <= most else dataclasses.replace(config, batch_size=most)


def make_learner(config: Config, shapes: Shapes, steps: int) -> Learner:
    """Return the learner of a run before its first step."""
    model, state = make_model(config, shapes)
    return Learner(model, state, _transformation(config.optimiser, steps).init(eqx.filter(model, eqx.is_inexact_array)))


def step_key(config: Config, step: int) -> PRNGKeyArray:
    """Return the random key of a step's dropout."""
    return jax.random.fold_in(_key(config, "dropout"), step)


def _key(config: Config, purpose: Literal["weights", "dropout"]) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(config.seed), ("weights", "dropout").index(purpose))


def _transformation(optimiser: Optimiser, steps: int) -> optax.GradientTransformation:
    warmup = round(optimiser.warmup * steps)
    if optimiser.schedule == "cosine":
        after = optax.cosine_decay_schedule(optimiser.learning_rate, max(steps - warmup, 1))
    else:
        after = optax.constant_schedule(optimiser.learning_rate)
    rise = optax.linear_schedule(optimiser.learning_rate / (warmup + 1), optimiser.learning_rate, warmup)
    rate = optax.join_schedules([rise, after], [warmup]) if warmup else after
    adam = optax.adamw(rate, weight_decay=optimiser.weight_decay, mask=_named(_DECAYED))
    if optimiser.oscillator_rate != 1:
        # A rate is a factor at the end, as Adam does not depend on the size of gradients.
        adam = optax.chain(adam, optax.masked(optax.scale(optimiser.oscillator_rate), _named(_OSCILLATORS)))
    return adam if optimiser.clip is None else optax.chain(optax.clip_by_global_norm(optimiser.clip), adam)


def _named(names: tuple[str, ...]) -> Callable[[PyTree], PyTree]:
    """Return the function that marks the leaves of these names."""
    return lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "name", None) in names, tree)


def costs(
    outputs: Float[Array, "cases ..."], targets: Num[Array, "cases ..."], smoothing: float = 0.0
) -> Float[Array, "cases ..."]:
    """Return the cross-entropy of every case if the targets are integers, else the squared errors.

    Args:
        outputs: logits of shape (cases, classes); for regression predictions, as many as targets.
        targets: class indices of shape (cases,), or real numbers.
        smoothing: share of the weight that the cross-entropy gives to all classes equally.

    Returns:
        Cross-entropies of shape (cases,), or squared errors in the shape of `outputs`.

    Example:
        ```python
        jnp.mean(costs(model(inputs, state)[0], targets))
        ```
    """
    if jnp.issubdtype(targets.dtype, jnp.integer):
        log = jax.nn.log_softmax(outputs)
        return -(1 - smoothing) * jnp.take_along_axis(log, targets[:, None], 1)[:, 0] - smoothing * jnp.mean(log, 1)
    return (outputs - targets.reshape(outputs.shape)) ** 2


def _summed(
    shapes: Shapes, outputs: Array, batch: Batch, class_weights: Float[Array, " classes"], smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Return the summed cost of a batch, and the count to divide it by for a mean."""
    counts = jnp.asarray(batch.weights, outputs.dtype)
    if shapes.task == "classification":
        # Class weights average to 1 over the training cases, so the mean is over cases, not over weights.
        targets = jnp.asarray(batch.targets)
        return jnp.sum(class_weights[targets] * counts * costs(outputs, targets, smoothing)), jnp.sum(counts)
    if shapes.every:
        valid = batch.mask[:, shapes.every - 1 :: shapes.every].astype(outputs.dtype)
        counts = counts[:, None, None] * valid[:, :, None]
    else:
        counts = counts[:, None]
    counts = jnp.broadcast_to(counts, outputs.shape)
    return jnp.sum(counts * costs(outputs, jnp.asarray(batch.targets, outputs.dtype))), jnp.sum(counts)


def _apply(
    model: Model, state: eqx.nn.State, batch: Batch, key: PRNGKeyArray | None
) -> tuple[Float[Array, "batch ..."], eqx.nn.State]:
    """Run the model on a batch. The mask excludes padding cases from batch norms."""
    if isinstance(model, HopfieldClassifier):
        # The energies of a batch add up, so one relaxation gives the summed gradient of all cases.
        flat = jnp.asarray(batch.inputs, model.net.biases[0].dtype).reshape(batch.inputs.shape[0], -1)
        return model(flat), state
    mask = jnp.asarray(batch.mask & (batch.weights > 0)[:, None])
    inputs = jnp.asarray(batch.inputs, model.decoder.weight.dtype)
    return model(inputs, state, mask=mask, key=key)


def cropped(batch: Batch, share: float, key: PRNGKeyArray) -> Batch:
    """Return a batch with a random window of every case; a window has this share of the valid steps of its case."""
    length = batch.inputs.shape[1]
    valid = jnp.sum(batch.mask, 1)
    kept = jnp.ceil(share * valid).astype(valid.dtype)
    chance = jax.random.uniform(key, valid.shape)
    # The chance is below 1, but its product may be rounded up.
    start = jnp.minimum((chance * (valid - kept + 1)).astype(valid.dtype), valid - kept)
    at = jnp.arange(math.ceil(share * length), dtype=valid.dtype)[None]
    index = jnp.minimum(start[:, None] + at, length - 1)
    inputs = jnp.take_along_axis(batch.inputs, index[..., None], 1)
    return batch._replace(inputs=inputs, mask=at < kept[:, None])


@eqx.filter_jit
def train_step(
    config: Config,
    shapes: Shapes,
    steps: int,
    learner: Learner,
    batch: Batch,
    class_weights: Float[Array, " classes"],
    key: PRNGKeyArray,
    everywhere: jax.sharding.Sharding | None = None,
) -> tuple[Learner, tuple[Array, Array, Array, Array]]:
    """Return the learner after one step, and cost, count, norm of the gradient and outputs of the batch.

    If the batch is split over devices, `everywhere` is the sharding that copies the learner to all of them.
    """
    if config.crop < 1:
        key, window = jax.random.split(key)
        batch = cropped(batch, config.crop, window)

    def cost(model: Model) -> Any:
        outputs, state = _apply(model, learner.state, batch, key)
        total, count = _summed(shapes, outputs, batch, class_weights, config.smoothing)
        return total / jnp.maximum(count, 1), (total, count, outputs, state)

    (_, (total, count, outputs, state)), gradient = eqx.filter_value_and_grad(cost, has_aux=True)(learner.model)
    params = eqx.filter(learner.model, eqx.is_inexact_array)
    # optax mixes integers and floats, which fails under strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        updates, moments = _transformation(config.optimiser, steps).update(gradient, learner.moments, params)
    learner = Learner(eqx.apply_updates(learner.model, updates), state, moments)
    if everywhere is not None:
        learner, outputs = eqx.filter_shard((learner, outputs), everywhere)
    return learner, (total, count, optax.tree.norm(gradient), outputs)


@eqx.filter_jit
def _outputs(
    model: Model, state: eqx.nn.State, batch: Batch, everywhere: jax.sharding.Sharding | None
) -> Float[Array, "batch ..."]:
    outputs = _apply(eqx.nn.inference_mode(model), state, batch, None)[0]
    return outputs if everywhere is None else eqx.filter_shard(outputs, everywhere)


def initial_model(config: Config, dataset: Dataset) -> tuple[Model, eqx.nn.State]:
    """Return the untrained model that `fit` begins with, and the state of its norms.

    Args:
        config: the settings of the run.
        dataset: the data set to train on.

    Raises:
        ArgumentError: the model does not fit the data set, or does not fit into memory.

    Example:
        ```python
        model, state = initial_model(ecg_recipe(), load("ecg-rhythm-envelope"))
        ```
    """
    config, shapes = whole_set(config, len(dataset.train)), Shapes.of(dataset)
    check_memory(eqx.filter_eval_shape(make_model, config, shapes)[0])
    return make_model(config, shapes)


def batch_loss(
    dataset: Dataset,
    model: Model,
    state: eqx.nn.State,
    batch: Batch,
    class_weights: Float[Array, " classes"] | None = None,
) -> Float[Array, ""]:
    """Return the mean loss of a batch, as `fit` minimises it, but with dropout and norms in inference mode.

    Args:
        dataset: the data set of the batch.
        model: the model.
        state: the state of its norms.
        batch: cases of one split of the data set.
        class_weights: weights of the classes, shape (classes,); `None` gives all classes the weight 1.

    Example:
        ```python
        batch = Batches(dataset.train, 8).batch(0, 0)
        gradient = eqx.filter_grad(lambda model: batch_loss(dataset, model, state, batch))(model)
        ```
    """
    outputs, _ = _apply(eqx.nn.inference_mode(model), state, on_device(batch), None)
    if class_weights is None:
        class_weights = jnp.ones(max(dataset.classes, 1), outputs.dtype)
    total, count = _summed(Shapes.of(dataset), outputs, batch, class_weights)
    return total / jnp.maximum(count, 1)


def on_device(batch: Batch, place: jax.sharding.Sharding | None = None) -> Batch:
    """Return the batch as device arrays, with the sharding `place` if it is given.

    Every process has the whole batch and puts its share onto its own devices.
    """

    def put(column: np.ndarray) -> Any:
        if place is None:
            return jax.device_put(column)
        return jax.make_array_from_callback(column.shape, place, column.__getitem__)

    return Batch(*map(put, batch))


def predict(
    model: Model,
    state: eqx.nn.State,
    split: Split,
    batch_size: int,
    place: jax.sharding.Sharding | None = None,
    everywhere: jax.sharding.Sharding | None = None,
    multiple: int = 1,
) -> Float[np.ndarray, "cases ..."]:
    """Return the outputs for every case of a split; compute them batch by batch, see `Batches` for `multiple`."""
    found = []
    multiple = multiple if place is None else len(place.device_set)
    for batch in Batches(split, batch_size, shuffle=False, multiple=multiple).epoch(0):
        outputs = np.asarray(_outputs(model, state, on_device(batch, place), everywhere))
        found.append(outputs[batch.weights > 0])
    return np.concatenate(found)
