"""Data sets: the bundled ECG rhythms, readers of published files, splits, and batches."""

from ._arff import read_arff as read_arff
from ._batches import Batches as Batches
from ._cases import Cases as Cases, dataset_from_cases as dataset_from_cases
from ._dataset import Dataset as Dataset
from ._ecg import slope_envelope as slope_envelope
from ._errors import DataError as DataError
from ._files import read_ts as read_ts, read_tsv as read_tsv
from ._idx import read_idx as read_idx, read_mnist as read_mnist
from ._load import available as available, load as load
from ._own import read_cases as read_cases, read_dataset as read_dataset
from ._ppg import read_ppg_dalia as read_ppg_dalia
from ._split import Split as Split
from ._store import data_folder as data_folder
from ._wfdb import (
    read_wfdb as read_wfdb,
    read_wfdb_annotations as read_wfdb_annotations,
)
