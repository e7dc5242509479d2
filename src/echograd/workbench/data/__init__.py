"""Data sets: the bundled ECG rhythms, readers of published files, splits, and batches."""

from ._arff import read_arff as read_arff
from ._batches import Batches as Batches
from ._beats import read_mit_bih_beats as read_mit_bih_beats
from ._bonn import read_bonn_eeg as read_bonn_eeg
from ._cases import Cases as Cases, dataset_from_cases as dataset_from_cases
from ._dataset import Dataset as Dataset
from ._ecg import slope_envelope as slope_envelope
from ._errors import DataError as DataError
from ._ett import (
    LongSeries as LongSeries,
    read_ett as read_ett,
    read_ett_series as read_ett_series,
    windows as windows,
)
from ._files import read_ts as read_ts, read_tsv as read_tsv
from ._fsdd import log_mel as log_mel, read_fsdd as read_fsdd
from ._idx import read_idx as read_idx, read_mnist as read_mnist
from ._load import available as available, load as load
from ._own import read_cases as read_cases, read_dataset as read_dataset
from ._ppg import read_ppg_dalia as read_ppg_dalia
from ._split import Split as Split
from ._store import data_folder as data_folder
from ._troika import read_troika as read_troika
from ._wfdb import (
    read_wfdb as read_wfdb,
    read_wfdb_annotations as read_wfdb_annotations,
)
