"""The forecaster of oscillators."""

import numpy as np
import pytest

import echograd as eg

pytestmark = [pytest.mark.precision_free, pytest.mark.least_effort]

SERIES = np.sin(np.arange(120) * np.array([[0.5], [0.3]])) + np.array([[3.0], [0.0]])


@pytest.mark.parametrize(("channels", "normalise"), [("independent", "last"), ("together", "mean")])
def test_oscillators_forecast(tmp_path, channels, normalise):
    forecaster = eg.SequenceForecaster(
        4, look_back=24, channels=channels, normalise=normalise, hidden=4, units=4, blocks=1, epochs=2
    ).fit(SERIES)
    found = forecaster.predict()
    assert found.shape == (2, 4)
    assert np.allclose(found, forecaster.predict(SERIES[:, -24:]))  # only the last window counts
    errors = [forecaster.predict(SERIES[:, i : i + 24]) - SERIES[:, i + 24 : i + 28] for i in (0, 1, 2)]
    assert forecaster.evaluate(SERIES[:, :30])["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    forecaster.save(tmp_path / "f.eqx")
    assert np.array_equal(eg.SequenceForecaster.load(tmp_path / "f.eqx").predict(), found)


def test_a_series_too_short():
    with pytest.raises(eg.ArgumentError, match="for training"):
        eg.SequenceForecaster(4, look_back=24).fit(SERIES[:, :30])
