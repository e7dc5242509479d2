"""Training of sequence models: a loop that resumes exactly, metrics, and runs kept in folders."""

from ._config import Config as Config, Network as Network, Optimiser as Optimiser, ecg_recipe as ecg_recipe
from ._fit import fit as fit
from ._learner import batch_loss as batch_loss, initial_model as initial_model
from ._metrics import (
    classification_metrics as classification_metrics,
    confusion_matrix as confusion_matrix,
    regression_metrics as regression_metrics,
)
from ._predictions import Predictions as Predictions
from ._predictor import Predictor as Predictor
from ._processes import join as join
from ._recipe import recipe as recipe
from ._run import Run as Run
from ._seeds import Seeds as Seeds, fit_seeds as fit_seeds
from ._trainer import TrainingDiverged as TrainingDiverged
