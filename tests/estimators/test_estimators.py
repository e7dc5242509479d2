"""Estimators: the conventions of scikit-learn on sequences, files, and predictions of runs for new cases."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError as TheirError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

import echograd as eg
from echograd.workbench.data import DataError
from echograd.workbench.estimators import NotFittedError
from echograd.workbench.training import Predictor, Run, fit, fit_seeds, recipe
from waves import SMALL, sums, waves

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

# Equal sizes and numbers of steps share compiled programs.
TINY = {
    "hidden": 4,
    "units": 3,
    "blocks": 1,
    "batch_size": 8,
    "learning_rate": 0.05,
    "settings": {"optimiser": {"warmup": 0.0}},
}
NAMES = np.array(["slow", "fast"])


def cases(count=24, seed=0):
    """Two classes of waves in one of two channels: X of shape (cases, channels, steps) and names."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    wave = y[:, None] + np.sin((0.3 + 0.9 * y[:, None]) * np.arange(20) + rng.uniform(0, 6, (count, 1)))
    return np.stack([wave, rng.normal(size=wave.shape)], axis=1), NAMES[y]


X, Y = cases()


def tiny(**params):
    return eg.SequenceClassifier(**{**TINY, "epochs": 2, **params})


@pytest.fixture(scope="module")
def fitted():
    return tiny(epochs=10).fit(X, Y)


@pytest.mark.fast
def test_a_classifier_learns(fitted):
    assert fitted.score(*cases(seed=1)) > 0.8
    assert fitted.classes_.tolist() == ["fast", "slow"]
    assert fitted.n_features_in_ == 2
    probabilities = fitted.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (fitted.classes_[probabilities.argmax(1)] == fitted.predict(X)).all()
    assert [record["epoch"] for record in fitted.history_] == list(range(1, 11))


def test_fit_changes_no_parameter(fitted):
    estimator = tiny()
    before = dict(vars(estimator))
    assert before == estimator.get_params()
    assert estimator.fit(X, Y) is estimator
    new = vars(estimator).keys() - before
    assert new
    assert all(name.endswith("_") or name.startswith("_") for name in new)
    assert {name: vars(estimator)[name] for name in before} == before


def test_clone_and_parameters(fitted):
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "predictor_")
    assert twin.set_params(epochs=3, seed=5) is twin
    assert (twin.epochs, twin.seed) == (3, 5)
    with pytest.raises(eg.ArgumentError, match=r"no parameter 'hiden'. Did you mean 'hidden'"):
        twin.set_params(hiden=3)
    assert repr(tiny(seed=1)).startswith("SequenceClassifier(")
    assert "seed=1" in repr(tiny(seed=1))
    assert is_classifier(fitted)
    assert is_regressor(eg.SequenceRegressor())


def test_the_seed_decides(fitted):
    same, other = (clone(fitted).set_params(seed=seed).fit(X, Y) for seed in (0, 1))
    np.testing.assert_array_equal(same.predict_proba(X), fitted.predict_proba(X))
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_before_fit():
    for call in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError, match=f"SequenceClassifier.{call}: the estimator is not fitted"):
            getattr(tiny(), call)(X)
    with pytest.raises(NotFittedError):
        tiny().save("nowhere.eqx")
    with pytest.raises(TheirError):
        check_is_fitted(tiny())


def test_in_the_tools_of_scikit_learn(fitted):
    check_is_fitted(fitted)
    assert cross_val_score(tiny(epochs=3), X, Y, cv=2, scoring="accuracy").shape == (2,)
    pipeline = make_pipeline(FunctionTransformer(np.negative), tiny()).fit(X, Y)
    assert pipeline.predict(X).shape == (24,)
    search = GridSearchCV(tiny(epochs=3), {"seed": [3, 4]}, cv=2, refit=False).fit(X, Y)
    assert search.best_params_["seed"] in (3, 4)


def test_forms_of_cases(fitted):
    lengths = 12 + np.arange(24) % 9
    ragged = [case[:, :length] for case, length in zip(X, lengths, strict=True)]
    padded = np.where(np.arange(20) < lengths[:, None, None], X, np.nan)
    np.testing.assert_array_equal(fitted.predict_proba(ragged), fitted.predict_proba(padded))
    np.testing.assert_allclose(fitted.predict_proba(ragged)[[8]], fitted.predict_proba([X[8]]), rtol=1e-4, atol=1e-7)
    longer = np.concatenate([X, X], axis=2)
    assert fitted.predict_proba(longer).shape == (24, 2)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (X.transpose(0, 2, 1), r"20 channels, but the model was trained on 2 \(channel 0, channel 1\).*transpose"),
        (X[0, 0], r"has shape \(20,\)"),
        ([], "is empty"),
        ([X[0], X[0, :1]], "1 to 2 channels"),
        (X.astype(str), "must hold real numbers"),
        ([X[0], np.full((2, 5), np.nan)], r"\[1\]: all values are missing"),
        (np.where(np.arange(20) == 3, np.nan, X), r"\[0\]: the value at step 3 of channel 0 is nan"),
        (1e39 * X, "not a finite float32"),
    ],
)
def test_wrong_cases(fitted, wrong, match):
    with pytest.raises(eg.EchogradError, match=match):
        fitted.predict(wrong)


@pytest.mark.parametrize(
    ("params", "y", "match"),
    [
        ({}, Y[:-1], "X has 24 cases, but y has 23"),
        ({}, np.full(24, "a"), "one class only, 'a'"),
        ({}, np.linspace(0, 1, 24), "real numbers, not classes"),
        ({}, np.full((24, 2), "a"), "of shape"),
        ({"hidden": 0}, Y, "hidden=0"),
        ({"ensemble": 0}, Y, "ensemble=0"),
        ({"validation_fraction": 1.0}, Y, "validation_fraction=1.0"),
        ({"settings": {"nugde": "symmetric"}}, Y, "Did you mean 'nudge'"),
        ({"settings": 3}, Y, "not a dictionary"),
        ({"progress": 3}, Y, "progress=3"),
    ],
)
def test_wrong_arguments_of_fit(params, y, match):
    with pytest.raises(eg.EchogradError, match=match):
        tiny(**params).fit(X, y)


@pytest.mark.parametrize("model", ["linear", "nonlinear", "damped", "hopfield"])
def test_the_recipe_suits_every_model(model):
    config = recipe(waves(), model=model, seed=2)
    assert (config.model, config.seed) == (model, 2)


def test_groups_stay_together():
    groups = np.repeat(np.arange(6), 4)
    seen = []
    tiny(patience=5, progress=seen.append).fit(X, Y, groups=groups)
    assert seen[-1].record["validation"]  # patience needs validation cases
    with pytest.raises(eg.ArgumentError, match="groups has shape"):
        tiny().fit(X, Y, groups=groups[:3])


def test_a_file_keeps_everything(fitted, tmp_path):
    path = tmp_path / "model.eqx"
    fitted.save(path)
    loaded = eg.SequenceClassifier.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.classes_.dtype == fitted.classes_.dtype
    with pytest.raises(DataError, match="holds a SequenceClassifier, not a SequenceRegressor"):
        eg.SequenceRegressor.load(path)
    content = path.read_bytes()
    for damaged in (
        content[:-1] + bytes([content[-1] ^ 1]),
        content[: len(content) // 2],
        content.replace(b"fast", b"last"),
        b"\n",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is not a saved model"):
            eg.SequenceClassifier.load(path)
    with pytest.raises(FileNotFoundError):
        eg.SequenceClassifier.load(tmp_path / "none.eqx")


def test_an_ensemble_is_a_mean(fitted):
    both = clone(fitted).set_params(ensemble=2).fit(X, Y)
    first, second = (Predictor([member], NAMES, ["a", "b"]) for member in both.predictor_.members)
    np.testing.assert_array_equal(first.predict(X).probabilities, fitted.predict_proba(X))
    mean = (first.predict(X).probabilities + second.predict(X).probabilities) / 2
    np.testing.assert_allclose(both.predict_proba(X), mean, rtol=1e-12)
    assert len(both.history_) == 20


@pytest.mark.parametrize("columns", [None, 2])
def test_a_regression_has_the_units_of_its_targets(columns, tmp_path):
    rng = np.random.default_rng(0)
    level = rng.normal(size=32)
    series = level[:, None, None] + 0.1 * rng.normal(size=(32, 1, 20))
    y = 300 + 50 * level if columns is None else np.stack([300 + 50 * level, -level], axis=1)
    regressor = eg.SequenceRegressor(**TINY, epochs=8, validation_fraction=0).fit(series[:, 0], y)
    assert regressor.predict(series).shape == y.shape
    assert regressor.score(series, y) > 0.5
    regressor.save(tmp_path / "model.eqx")
    loaded = eg.SequenceRegressor.load(tmp_path / "model.eqx")
    np.testing.assert_array_equal(loaded.predict(series), regressor.predict(series))
    with pytest.raises(eg.ArgumentError, match="all true targets are equal"):
        regressor.score(series, np.ones_like(y))
    with pytest.raises(eg.EchogradError, match="must hold real numbers"):
        regressor.fit(series, np.array(["a"] * 32))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(SMALL, waves(), out=folder)
    return Run.open(folder)  # without the data set


def inputs(split):
    return [case[:length].T for case, length in zip(split.inputs, split.lengths, strict=True)]


def test_a_run_predicts_new_cases_without_its_data(run):
    data = waves()
    found = run.predict(inputs(data.test))
    np.testing.assert_array_equal(found.outputs, Run.open(run.folder, data).predict("test"))
    assert found.labels.tolist() == [data.class_names[i] for i in found.outputs.argmax(1)]
    assert repr(found) == "Predictions(10 cases, classes slow, fast)"
    with pytest.raises(eg.ArgumentError, match=r"1 channels, but the model was trained on 2 \(wave, noise\)"):
        run.predict(np.ones((3, 1, 10)))


def test_the_model_of_a_run_is_one_file(run, tmp_path):
    run.predictor.save(tmp_path / "waves.eqx")
    loaded, new = Predictor.load(tmp_path / "waves.eqx"), inputs(waves(seed=1).test)
    np.testing.assert_array_equal(loaded.predict(new).outputs, run.predict(new).outputs)
    with pytest.raises(DataError, match="holds a model without an estimator"):
        eg.SequenceClassifier.load(tmp_path / "waves.eqx")


def test_a_regression_over_time(tmp_path):
    data = sums(times=4)
    run = fit(SMALL, data, out=tmp_path / "run")
    found = Run.open(tmp_path / "run").predict([case.T[:, :17] for case in data.test.inputs])
    assert found.outputs.shape == (20, 4, 1)
    assert np.isnan(found.outputs[:, 2:]).all()
    np.testing.assert_allclose(found.outputs[:, :2], run.predict("test")[:, :2], rtol=1e-5)
    with pytest.raises(eg.ArgumentError, match="a regression has no labels"):
        _ = found.labels


def test_several_seeds(tmp_path, run):
    data, begun = waves(), []
    found = fit_seeds(SMALL, data, seeds=2, out=tmp_path / "seeds", begin=begun.append)
    assert [config.seed for config in begun] == found.summary["seeds"] == [0, 1]
    assert found.runs[0].results["test"] == run.results["test"]
    accuracy = found.summary["test"]["accuracy"]
    each = [one.results["test"]["accuracy"] for one in found.runs]
    assert accuracy == {"mean": np.mean(each), "sd": np.std(each, ddof=1), "each": each}
    right = found.predictor.predict(inputs(data.test)).outputs.argmax(1) == data.test.targets
    assert found.summary["ensemble"]["accuracy"] == pytest.approx(right.mean())
    again = fit_seeds(SMALL, data, seeds=2, out=tmp_path / "seeds", resume=True)
    assert again.summary == found.summary
    with pytest.raises(eg.ArgumentError, match="holds one training run"):
        fit_seeds(SMALL, data, seeds=2, out=run.folder)
    with pytest.raises(FileExistsError):
        fit_seeds(SMALL, data, seeds=2, out=tmp_path / "seeds")
