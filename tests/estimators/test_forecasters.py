"""Forecasters: windows, the rolling evaluation, baselines in closed form, and oscillators."""

import numpy as np
import pytest

import echograd as eg
from echograd.workbench.estimators import LinearForecaster, NotFittedError, PersistenceForecaster

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

SERIES = np.sin(np.arange(120) * np.array([[0.5], [0.3]])) + np.array([[3.0], [0.0]])


def test_persistence_repeats_a_period():
    forecaster = PersistenceForecaster(3, period=2).fit(np.arange(10.0)[None])
    assert forecaster.predict().tolist() == [[8, 9, 8]]
    assert forecaster.evaluate(np.arange(5.0)[None]) == {"mse": 8.0, "mae": 8 / 3, "windows": 1}


def test_the_linear_map_continues_waves():
    forecaster = LinearForecaster(5, look_back=12, ridge=1e-9).fit(SERIES[:, :100])
    assert np.allclose(forecaster.predict(), SERIES[:, 100:105], atol=1e-3)
    assert forecaster.evaluate(SERIES)["windows"] == 120 - 16
    assert forecaster.evaluate([SERIES[:, :60], SERIES[:, 60:]])["windows"] == 2 * (60 - 16)


def test_the_rolling_evaluation_is_that_of_every_window():
    forecaster = LinearForecaster(5, look_back=12, ridge=1.0).fit(SERIES[:, :60])
    errors = [forecaster.predict(SERIES[:, : i + 12]) - SERIES[:, i + 12 : i + 17] for i in range(120 - 16)]
    assert forecaster.evaluate(SERIES)["mse"] == pytest.approx(np.mean(np.square(errors)))
    assert forecaster.evaluate(SERIES)["mae"] == pytest.approx(np.mean(np.abs(errors)))


def test_wrong_series():
    with pytest.raises(eg.ArgumentError, match="has 5 steps; at least 17"):
        LinearForecaster(5, look_back=12).fit(SERIES[:, :5])
    with pytest.raises(eg.ArgumentError, match="has 1 channels, but the fitted one has 2"):
        PersistenceForecaster(2).fit(SERIES).predict(SERIES[:1])
    with pytest.raises(eg.ArgumentError, match="channel 1 is nan at step 7"):
        PersistenceForecaster(2).fit(np.where(np.arange(120) == 7, [[0.0], [np.nan]], SERIES))
    with pytest.raises(NotFittedError):
        LinearForecaster(5).predict(SERIES)
