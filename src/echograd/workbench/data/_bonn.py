"""Reader of the Bonn EEG segments."""

import pathlib
import zipfile
import zlib

import numpy as np

from echograd._internal import _checks

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._reading import open_file
from ._split import Split

NAME = "bonn-eeg"
FOLDS = 10
_CASES, _LENGTH, _RATE = 100, 4097, 173.61
# The letter that begins a file name, and the class.
_CLASSES = {
    "Z": "healthy, eyes open",
    "O": "healthy, eyes closed",
    "N": "between seizures, other hemisphere",
    "F": "between seizures, focus",
    "S": "seizure",
}
_MOST = 1 << 17  # bytes of one segment


def find_bonn(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the archive in a folder, or None."""
    return next((file for file in sorted(folder.glob("*.zip")) if "bonn" in file.name.lower()), None)


def read_bonn_eeg(path: str | pathlib.Path, *, fold: int = 0, seed: int = 0) -> Dataset:
    """Read the Bonn EEG segments (Andrzejak et al. 2001): five classes of 100 segments of 23.6 s, one channel.

    There is no published split. The segments of every class are drawn into ten folds of ten; fold number `fold` is the
    test. Average over the ten folds. Published accuracies used various splits and subsets of the classes, so they are
    not comparable with each other. The files do not tell which segments are from one person, so training and test may
    share people.

    Args:
        path: the archive (zip) with 500 text files ``Z001.txt`` to ``S100.txt``.
        fold: the test fold, 0 to 9.
        seed: seed of the draw.

    Returns:
        The data set, without a validation split.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        ArgumentError: `fold` or `seed` is out of range.
        DataError: the archive is damaged, or does not hold the published segments.

    Source: R. G. Andrzejak et al., Physical Review E 64 (2001), 061907.

    Example:
        ```python
        dataset = read_bonn_eeg("Bonn_EEG_dataset.zip", fold=3).standardised()
        ```
    """
    path = as_path("read_bonn_eeg", "path", path)
    fold = _checks.integer("read_bonn_eeg", "fold", fold, 0, FOLDS - 1)
    seed = _checks.integer("read_bonn_eeg", "seed", seed, 0, 2**63 - 1)
    segments = _segments(path)
    rng = np.random.default_rng(seed)
    test = np.zeros((len(_CLASSES), _CASES), bool)
    for row in test:
        row[rng.permutation(_CASES)[fold * _CASES // FOLDS : (fold + 1) * _CASES // FOLDS]] = True
    test = test.reshape(-1)
    labels = np.repeat(np.arange(len(_CLASSES), dtype=np.int32), _CASES)

    def split(side: np.ndarray) -> Split:
        return Split(segments[side], labels[side], np.full(side.sum(), _LENGTH, np.int32))

    return Dataset(
        name=NAME + (f"-{fold}" if fold else ""),
        train=split(~test),
        validation=None,
        test=split(test),
        task="classification",
        class_names=tuple(_CLASSES.values()),
        channel_names=("EEG",),
        sample_rate=_RATE,
        description=(
            f"EEG segments of 23.6 s. There is no published split: of ten folds drawn with seed {seed}, fold {fold} is "
            "the test. Training and test may share people."
        ),
        source="University of Bonn. Cite Andrzejak et al., Physical Review E 64:061907, 2001.",
        licence="None stated by the authors; ask them before redistributing the segments.",
    )


def _segments(path: pathlib.Path) -> np.ndarray:
    """Return all segments in the order of classes and numbers, shape (500, 4097, 1)."""
    wanted = [f"{letter}{number:03d}" for letter in _CLASSES for number in range(1, _CASES + 1)]
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {
                pathlib.PurePosixPath(info.filename).stem.upper(): info
                for info in archive.infolist()
                if info.filename.lower().endswith(".txt")
            }
            missing = [name for name in wanted if name not in members]
            if missing:
                raise DataError(f"{path} lacks {len(missing)} of 500 segments, such as {missing[0]}.txt.")
            large = [name for name in wanted if members[name].file_size > _MOST]
            if large:
                raise DataError(f"{path}: {large[0]} has more than {_MOST} bytes. Is it another archive?")
            found = [np.array(archive.read(members[name]).split(), np.float32) for name in wanted]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is a damaged archive, or its segments are not numbers ({error}).") from error
    wrong = next((i for i, case in enumerate(found) if len(case) != _LENGTH or not np.isfinite(case).all()), None)
    if wrong is not None:
        raise DataError(f"{path}: {wanted[wrong]} has {len(found[wrong])} values instead of {_LENGTH} finite ones.")
    return np.stack(found)[:, :, None]
