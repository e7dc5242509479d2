"""Data sets: a bundled one, readers of published files, splits that are kept apart, and batches."""

from ._batches import Batch as Batch
from ._batches import Batches as Batches
from ._dataset import Dataset as Dataset
from ._dataset import Split as Split
from ._ecg import slope_envelope as slope_envelope
from ._files import Cases as Cases
from ._files import dataset_from_cases as dataset_from_cases
from ._files import read_arff as read_arff
from ._files import read_ts as read_ts
from ._files import read_tsv as read_tsv
from ._load import Entry as Entry
from ._load import available as available
from ._load import load as load
from ._ppg import read_ppg_dalia as read_ppg_dalia
from ._store import data_folder as data_folder
from ._wfdb import Annotations as Annotations
from ._wfdb import Record as Record
from ._wfdb import read_wfdb as read_wfdb
from ._wfdb import read_wfdb_annotations as read_wfdb_annotations
