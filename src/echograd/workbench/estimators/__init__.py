"""Estimators in the manner of scikit-learn for sequences: fit, predict, score, save and load."""

from ._base import AbstractSequenceEstimator as AbstractSequenceEstimator
from ._classifier import SequenceClassifier as SequenceClassifier
from ._errors import NotFittedError as NotFittedError
from ._forecast import (
    AbstractForecaster as AbstractForecaster,
    LinearForecaster as LinearForecaster,
    PersistenceForecaster as PersistenceForecaster,
)
from ._forecaster import SequenceForecaster as SequenceForecaster
from ._regressor import SequenceRegressor as SequenceRegressor
