"""Which part of a series decided: the effect of masking a window, and a gradient with respect to the inputs."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from echograd.nn import HSSM

from ..data import Split
from ..training import Run
from ..training._learner import predict, whole_set
from ._examples import probabilities

Score = Callable[[Split], np.ndarray]

# Most windows of a case, and a limit for cases × windows × steps, which bounds the time for long series.
WINDOWS, _FEWEST, _STEPS = 32, 8, 20_000_000


def window_edges(length: int, cases: int = 1) -> np.ndarray:
    """Return the first steps of windows of about equal length, and the end of the last one."""
    most = int(np.clip(_STEPS // (cases * length), _FEWEST, WINDOWS))
    return np.linspace(0, length, min(most, length) + 1).round().astype(int)


def occlusion(score: Score, case: Split, edges: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    r"""Return how much every window adds to the score of a case: $s(x) - s(x \text{ without the window})$.

    In a window, every channel is replaced by a neutral value.

    Args:
        score: function from a split to one number per case.
        case: a split with one case.
        edges: limits of the windows.
        neutral: value of every channel in a masked window, shape (channels,).
    """
    masked = np.repeat(case.inputs, len(edges), 0)
    for row, (start, stop) in enumerate(itertools.pairwise(edges)):
        masked[row, start:stop] = neutral
    # The last row is the unmasked case.
    scores = score(Split(masked, np.repeat(case.targets, len(edges), 0), np.repeat(case.lengths, len(edges))))
    return (scores[-1] - scores[:-1]).astype(float)


def channel_means(train: Split) -> np.ndarray:
    """Return the mean of every channel over the valid steps of the training cases, the neutral value of a mask.

    The mean over the case itself would not do: it spreads what is special about the case over its masked windows.
    """
    return train.inputs[train.mask].mean(0, dtype=np.float64).astype(np.float32)


def score_of(run: Run, label: int | None) -> Score:
    """Return the function that scores cases: the probability of a class, or the prediction in units of the targets."""
    size = whole_set(run.config, len(run.prepared.train)).batch_size

    def score(split: Split) -> np.ndarray:
        outputs = predict(run.model, run.state, split, size)
        return _scale(run) * outputs[:, 0] if label is None else probabilities(outputs)[:, label]

    return score


def _scale(run: Run) -> float:
    standardised = run.config.standardise and run.dataset.task == "regression"
    return run.dataset.target_scale()[1] if standardised else 1.0


def gradient_times_input(run: Run, cases: Split, edges: Sequence[np.ndarray]) -> list[np.ndarray]:
    r"""Return, for every case and window, $\sum_{t, c} (x_{tc} - \bar x_c)\, \partial s / \partial x_{tc}$.

    This is the effect of masking the window with the channel means to first order, with the score of `occlusion`. The
    gradient is the one with which the model was trained.

    Args:
        run: a run of an `HSSM`.
        cases: the cases. Their targets are the classes whose probabilities are the scores.
        edges: limits of the windows of every case.
    """
    model = run.model
    assert isinstance(model, HSSM)
    dtype = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))[0].dtype
    classes = jnp.asarray(cases.targets) if cases.targets.dtype == np.int32 else None
    inputs = jnp.asarray(cases.inputs.astype(dtype))
    outputs, slopes = _slopes(model, run.state, inputs, jnp.asarray(cases.mask), classes)
    if classes is None:
        factor = np.full(len(cases), _scale(run))
    else:
        # d p = p (1 - p) d(log-odds). The slope of the log-odds does not vanish where p is close to 0 or 1.
        p = probabilities(np.asarray(outputs))[np.arange(len(cases)), cases.targets]
        factor = p * (1 - p)
    found, neutral = [], channel_means(run.prepared.train)
    for i, limits in enumerate(edges):
        n = int(cases.lengths[i])
        x, slope = cases.inputs[i, :n].astype(float), np.asarray(slopes[i, :n], float)
        effect = np.sum((x - neutral) * slope, 1) * factor[i]
        found.append(np.add.reduceat(effect, limits[:-1]))
    return found


@eqx.filter_jit
def _slopes(
    model: HSSM, state: Any, inputs: Float[Array, "cases steps channels"], mask: Array, classes: Array | None
) -> tuple[Array, Array]:
    """Return the outputs, and the slopes of the log-odds of the classes, or of the predictions."""

    def total(inputs: Array) -> tuple[Array, Array]:
        outputs = model(inputs, state, mask=mask)
        outputs = outputs if state is None else outputs[0]
        if classes is None:
            return jnp.sum(outputs[:, 0]), outputs
        here = jnp.arange(outputs.shape[1], dtype=classes.dtype)[None] == classes[:, None]
        others = jnp.where(here, jnp.full_like(outputs, -jnp.inf), outputs)
        odds = jnp.sum(jnp.where(here, outputs, jnp.zeros_like(outputs)), 1) - jax.nn.logsumexp(others, axis=1)
        return jnp.sum(odds), outputs

    slopes, outputs = jax.grad(total, has_aux=True)(inputs)
    return outputs, slopes
