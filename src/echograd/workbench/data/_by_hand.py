"""Published data sets that are read from files which the user puts into the data folder."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable

from . import _beats, _bonn, _ett, _fsdd, _troika
from ._dataset import Dataset, Task


@dataclasses.dataclass(frozen=True)
class ByHand:
    """A family of data sets that one published archive serves.

    Attributes:
        name: the name with the default options.
        pattern: of all names; its groups are the options.
        files: what to put where, for a message.
        folders: names of the folder in the data folder.
        find: whether a folder holds the files.
        read: reads the data set from the folder, with the groups of the pattern.
        task: classification or regression.
        shape: numbers of steps (None if it depends on the recordings), channels and classes of `name`.
    """

    name: str
    pattern: str
    files: str
    folders: tuple[str, ...]
    find: Callable[[pathlib.Path], bool]
    read: Callable[..., Dataset]
    task: Task
    shape: tuple[int | None, int, int]

    def place(self, root: pathlib.Path) -> pathlib.Path | None:
        """Return the folder of the files, or None."""
        places = [root / folder for folder in self.folders]
        return next((place for place in places if place.is_dir() and self.find(place)), None)


def _read_fsdd(folder: pathlib.Path, view: str | None, speaker: str | None) -> Dataset:
    return _fsdd.read_fsdd(folder, view=view or "mel", speaker=speaker)  # pyright: ignore[reportArgumentType]


def _read_troika(folder: pathlib.Path, test: str | None) -> Dataset:
    return _troika.read_troika(folder, test=test or "01")


def _read_bonn(folder: pathlib.Path, fold: str | None) -> Dataset:
    file = _bonn.find_bonn(folder)
    assert file is not None
    return _bonn.read_bonn_eeg(file, fold=int(fold or 0))


def _read_ett(file: str, folder: pathlib.Path, horizon: str | None) -> Dataset:
    return _ett.read_ett(folder / file, horizon=int(horizon or 96))


FAMILIES = (
    ByHand(
        "fsdd",
        r"fsdd(?:-(patches|waveform))?(?:-([a-z]+))?",
        "the recordings 0_george_0.wav and so on of https://github.com/Jakobovski/free-spoken-digit-dataset",
        ("fsdd/recordings", "FSDD/recordings", "fsdd", "FSDD"),
        lambda folder: bool(_fsdd.find_digits(folder)),
        _read_fsdd,
        "classification",
        (None, 32, 10),
    ),
    ByHand(
        "troika",
        r"troika(?:-(\d\d))?",
        "DATA_01_TYPE01.mat, REF_01_TYPE01.mat and so on of the IEEE Signal Processing Cup 2015",
        ("troika", "TROIKA"),
        lambda folder: bool(_troika.find_recordings(folder)),
        _read_troika,
        "regression",
        (200, 5, 0),
    ),
    ByHand(
        "bonn-eeg",
        r"bonn-eeg(?:-(\d))?",
        "one zip archive named after Bonn, with the 500 text files Z001.txt to S100.txt",
        ("bonn-eeg", "BonnEEG"),
        lambda folder: _bonn.find_bonn(folder) is not None,
        _read_bonn,
        "classification",
        (4097, 1, 5),
    ),
    ByHand(
        _beats.NAME,
        _beats.NAME,
        "100.hea, 100.dat, 100.atr and so on of https://physionet.org/content/mitdb/1.0.0",
        ("mit-bih", "MIT-BIH", "mitdb"),
        _beats.find_beats,
        _beats.read_mit_bih_beats,
        "classification",
        (_beats.BEFORE + _beats.AFTER, len(_beats.CHANNELS), len(_beats.CLASSES)),
    ),
    *(
        ByHand(
            name,
            name + r"(?:-([1-9]\d{0,3}))?",
            f"{stem}.csv of https://github.com/zhouhaoyi/ETDataset",
            ("ett", "ETT"),
            lambda folder, stem=stem: (folder / f"{stem}.csv").is_file(),
            functools.partial(_read_ett, f"{stem}.csv"),
            "regression",
            (_ett.LOOK_BACK, 7, 0),
        )
        for name, stem in _ett.NAMES.items()
    ),
)


def load_by_hand(name: str, root: pathlib.Path) -> Dataset | None:
    """Load a data set of a family; return None if the name is of none.

    Raises:
        FileNotFoundError: the files are missing. The message tells where to put which file.
    """
    for family in FAMILIES:
        found = re.fullmatch(family.pattern, name)
        if found:
            place = family.place(root)
            if place is None:
                raise FileNotFoundError(
                    f"{family.name} is not in {root}, and it is not downloaded. Put {family.files} into "
                    f"{root / family.folders[0]}."
                )
            return dataclasses.replace(family.read(place, *found.groups()), name=name)
    return None
