"""Estimators in the manner of scikit-learn for sequences: fit, predict, score, save and load."""

from ._base import AbstractSequenceEstimator as AbstractSequenceEstimator
from ._classifier import SequenceClassifier as SequenceClassifier
from ._errors import NotFittedError as NotFittedError
from ._regressor import SequenceRegressor as SequenceRegressor
