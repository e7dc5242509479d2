"""Wrong values: each is refused before training starts, in one clear message; a model that diverges has no scores."""

import math

import numpy as np
import pytest

from echograd.workbench.data import load
from echograd.workbench.training import (
    Config,
    Network,
    Optimiser,
    Run,
    TrainingDiverged,
    classification_metrics,
    confusion_matrix,
    ecg_recipe,
    fit,
    initial_model,
    regression_metrics,
)
from echograd.workbench.training._metrics import scores_from_confusion
from waves import SMALL, numbers, smaller, sums, waves

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

NAN, INF = math.nan, math.inf
DATA = waves()

# A run has its own precision, so the other leg would show the same.
one_leg = pytest.mark.float64_only


def one_message(error, *words):
    """Hold a message to be short, of one line, and to have these words."""
    text = str(error.value)
    assert len(text) < 500, text
    assert "\n" not in text
    for word in words:
        assert word in text


SETTINGS = [
    (lambda: Config("x", epochs="3"), "epochs='3'; it must be a Python integer"),
    (lambda: Config("x", epochs=1.5), "epochs=1.5; it must be a Python integer"),
    (lambda: Config("x", epochs=1e20), "epochs=1e+20; it must be a Python integer"),
    (lambda: Config("x", epochs=True), "epochs=True; it must be a Python integer"),
    (lambda: Config("x", epochs=10**12), "at most 2147483647"),
    (lambda: Config("x", epochs=[1] * 10**3), "epochs=[ 1, 1, 1, "),
    (lambda: Config("x", seed=1.5), "seed=1.5; it must be a Python integer"),
    (lambda: Config("x", batch_size=0), "batch_size=0; it must be a Python integer of at least 1"),
    (lambda: Config("x", network=5), "network=5 is not Network(...)"),
    (lambda: Config("x", optimiser={"clip": 1}), "is not Optimiser(...)"),
    (lambda: Config("x", class_weights="no"), "class_weights='no' must be True or False"),
    (lambda: Config("x", validation_fraction=NAN), "a finite number"),
    (lambda: Config("x", validation_fraction=1.0), "at least 0 and below 1"),
    (lambda: Config("x", validation_fraction=0, patience=3), "cannot stop early without validation cases"),
    (lambda: Config("x", crop=0.0), "a share of the steps, above 0 and at most 1"),
    (lambda: Config("x", smoothing=1.0), "smoothing=1.0; it is a share"),
    (lambda: Optimiser(oscillator_rate=-1.0), "oscillator_rate=-1.0; it must be at least 0"),
    (lambda: Config("x", nudge="symmetric", beta=10**400), "beta=10000"),
    (lambda: Config("x", nudge="symmetric", beta=0.0), "strength 0"),
    (
        lambda: Config("x", model=["linear"]),
        "model=['linear']; choose one of 'linear', 'nonlinear', 'damped', 'hopfield'",
    ),
    (lambda: Config(5), "dataset=5 is not a str"),
    (lambda: Config(""), "echograd datasets"),
    (lambda: Network(complex="no"), "complex='no' must be True or False"),
    (lambda: Network(units=2**31), "at most 2147483647"),
    (lambda: Network(blocks=10**9), "at most 10000"),
    (lambda: Network(angles=1.0), "2 numbers"),
    (lambda: Network(angles=(1.0, 0.5)), "the smaller one first"),
    (lambda: Network(angles=(NAN, 1.0)), "a finite number"),
    (lambda: Network(decays=(0.0, 0.1)), "pass two positive rates"),
    (lambda: Config("x", network=Network(decays=(0.01, 0.1))), "only damped oscillators have decay rates"),
    (lambda: Config("x", model="damped", nudge="symmetric"), "driven by the errors themselves"),
    (lambda: Network(dropout=1.0), "below 1"),
    (lambda: Optimiser(learning_rate="x"), "learning_rate='x' is not a real number"),
    (lambda: Optimiser(weight_decay=INF), "weight_decay=inf; it must be a finite number"),
    (lambda: Optimiser(clip=NAN), "clip=nan; it must be a finite number"),
    (lambda: ecg_recipe(epoch=3), "no setting 'epoch'. Did you mean 'epochs'?"),
    (lambda: Config.from_dict(5), "5 is not a mapping"),
    (lambda: Config.from_dict({1: 2}), "no setting '1'"),
]


@pytest.mark.fast
@pytest.mark.parametrize(("make", "words"), SETTINGS, ids=[words for _, words in SETTINGS])
def test_settings_that_cannot_be_are_refused(make, words):
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    one_message(error, words)


def test_numbers_of_numpy_are_taken_as_those_of_python():
    config = Config(
        "x",
        epochs=np.int64(3),
        seed=np.uint8(3),
        class_weights=np.True_,
        validation_fraction=np.float32(0.25),
        network=Network(units=np.int32(4), angles=(np.float64(0.1), 1)),
    )
    plain = Network(units=4, angles=(0.1, 1.0))
    assert config == Config("x", epochs=3, seed=3, validation_fraction=0.25, network=plain)
    assert Config.from_dict(config.to_dict()) == config
    assert type(config.epochs) is int


CALLS = [
    (lambda out: fit(None, out=out), "config=None is not a Config"),
    (lambda out: fit(SMALL, DATA, out=None), "out=None is not a path"),
    (lambda out: fit(SMALL, DATA, out=""), "out='' names no file"),
    (lambda out: fit(SMALL, 5, out=out), "dataset=5 is not a Dataset"),
    (lambda out: fit(SMALL, DATA, out=out, progress=5), "progress=5"),
    (lambda out: fit(SMALL, DATA, out=out, checkpoint_minutes="x"), "checkpoint_minutes='x'"),
    (lambda out: fit(SMALL, DATA, out=out, checkpoint_minutes=NAN), "checkpoint_minutes=nan"),
    (lambda out: fit(SMALL, DATA, out=out, checkpoint_minutes=-1), "at least 0"),
    (lambda out: fit(SMALL, DATA, out=out, devices=1.0), "devices=1.0"),
    (lambda out: fit(smaller(epochs=2**31 - 1), DATA, out=out), "steps, but the optimiser counts fewer than 2³¹"),
    (lambda out: fit(smaller(network=Network(units=10**9)), DATA, out=out), "of memory. Use fewer units"),
    (lambda out: Run.open(None), "folder=None is not a path"),
    (lambda out: Run.open(out, 5), "dataset=5 is not a Dataset"),
]


@pytest.mark.parametrize(("call", "words"), CALLS, ids=[words for _, words in CALLS])
def test_arguments_that_cannot_be_are_refused_before_a_folder_is_made(tmp_path, call, words):
    with pytest.raises((TypeError, ValueError)) as error:
        call(tmp_path / "run")
    one_message(error, words)
    assert not (tmp_path / "run").exists()


SCORES = [
    (lambda: confusion_matrix(np.array([0, 5]), np.array([0, 1]), 2), "targets go from 0 to 5"),
    (lambda: confusion_matrix(np.array([0, 1]), np.array([0, 2]), 2), "predictions go from 0 to 2"),
    (lambda: confusion_matrix(np.array([-1, 1]), np.array([0, 1]), 2), "targets go from -1 to 1"),
    (lambda: confusion_matrix(np.array([0, 1]), np.array([0, 1, 1]), 2), "2 targets and 3 predictions"),
    (lambda: confusion_matrix(np.array([0.0]), np.array([0]), 2), "they are float64"),
    (lambda: confusion_matrix(None, np.array([0]), 2), "integers of shape (cases,)"),
    (lambda: confusion_matrix(np.array([0]), np.array([0]), 2.5), "classes=2.5"),
    (lambda: scores_from_confusion(np.ones((2, 3))), "must be square"),
    (lambda: scores_from_confusion(np.ones(4)), "2 dimensions"),
    (lambda: scores_from_confusion(np.array([[1, -2], [3, 4]])), "smallest count is -2"),
    (lambda: scores_from_confusion(np.array([[1, NAN], [3, 4]])), "1 of 4 numbers are NaN"),
    (lambda: scores_from_confusion("x"), "must be real numbers"),
    (lambda: classification_metrics(np.ones((2, 2)), np.array([0, 1, 1])), "3 targets for logits of shape (2, 2)"),
    (lambda: classification_metrics(np.ones((2, 2)), np.array([0, 7])), "targets go from 0 to 7"),
    (lambda: classification_metrics(np.ones((2, 2)), np.array([0, -1])), "targets go from -1 to 0"),
    (lambda: classification_metrics(np.array([[NAN, 1.0]]), np.array([0])), "1 of 2 numbers are NaN"),
    (lambda: classification_metrics(np.ones((0, 2)), np.zeros(0, int)), "0 targets"),
    (lambda: classification_metrics(np.ones((1, 2)), np.array([0]), np.ones(3)), "one number for each of 2 classes"),
    (lambda: classification_metrics(np.ones((1, 2)), np.array([0]), np.zeros(2)), "not 0 for all cases"),
    (lambda: regression_metrics(np.array([NAN, 1.0]), np.ones(2)), "predictions: 1 of 2 numbers are NaN"),
    (lambda: regression_metrics(np.ones(2), np.array([INF, 1.0])), "targets: 1 of 2 numbers are NaN"),
    (lambda: regression_metrics(np.ones(0), np.ones(0)), "no unmasked numbers"),
    (lambda: regression_metrics(np.ones(2), np.ones(2), np.array([1, 0])), "must be booleans"),
]


@pytest.mark.fast
@pytest.mark.parametrize(("score", "words"), SCORES, ids=[words for _, words in SCORES])
def test_scores_of_nonsense_are_refused(score, words):
    with pytest.raises((TypeError, ValueError)) as error:
        score()
    one_message(error, words)


def test_what_the_mask_leaves_out_may_be_anything():
    found = regression_metrics(np.array([1.0, NAN]), np.array([2.0, INF]), np.array([True, False]))
    assert (found["mse"], found["mae"]) == (1.0, 1.0)


@one_leg
@pytest.mark.parametrize("data", [DATA, sums()], ids=["classes", "numbers"])
def test_a_model_that_diverges_in_its_last_step_has_no_scores(tmp_path, data):
    """Its loss was measured before that step; what shows it are its outputs for the validation cases."""
    config = smaller(epochs=1, batch_size=10**6, optimiser=Optimiser(learning_rate=1e30, warmup=0.0))
    with pytest.raises(TrainingDiverged) as error:
        fit(config, data, out=tmp_path / "run")
    one_message(error, "step 1, on the validation cases", "learning rate (it is 1e+30)", "optimiser.clip (it is 1)")
    assert not Run.open(tmp_path / "run", data).finished


@one_leg
def test_a_run_that_diverges_says_so_without_the_stack(tmp_path):
    config = Config(
        "ecg-afib-envelope",
        network=Network(hidden=4, units=4, blocks=1),
        optimiser=Optimiser(learning_rate=1e6, clip=None),
        epochs=1,
    )
    with pytest.raises(TrainingDiverged) as error:
        fit(config, load("ecg-afib-envelope"), out=tmp_path / "run")
    one_message(error, "Training diverged at step", "(epoch 1, batch", "it is 1e+06", "set optimiser.clip")


@one_leg
def test_a_batch_larger_than_the_set_is_the_set(tmp_path):
    for size in (21, 10**7):
        fit(smaller(batch_size=size, epochs=2), DATA, out=tmp_path / f"{size}")
    assert numbers(tmp_path / f"{10**7}") == numbers(tmp_path / "21")
    assert Run.open(tmp_path / f"{10**7}", DATA).config.batch_size == 10**7
    # The strength of a Hopfield network's nudge is that of one case, times the cases that there are.
    hopfield = smaller(model="hopfield", nudge="symmetric", batch_size=10**7)
    model, _ = initial_model(hopfield, waves(equal=True))
    assert float(model.gradient.nudge.beta) == pytest.approx(21 * 0.4)
