"""Data sets by name."""

import dataclasses
import difflib
import functools
import os
import pathlib
import re
from typing import Literal

from echograd import ArgumentError, ArgumentTypeError

from . import _checks
from ._arff import read_arff
from ._cases import Missing, check_missing, dataset_from_cases
from ._dataset import Dataset, Task
from ._ecg import NAMES as BUNDLED, load_ecg
from ._files import read_ts, read_tsv
from ._idx import CLASSES, FILES, NAME as MNIST, PIXELS, TEST, TRAIN, find_mnist, read_mnist
from ._ppg import SUBJECTS, read_ppg_dalia
from ._store import data_folder, fetch, verify

State = Literal["bundled", "cached", "missing"]

_PPG = "PPG-DaLiA"
_PPG_URL = "https://archive.ics.uci.edu/static/public/495/ppg+dalia.zip"
_ARCHIVE_URL = "https://www.timeseriesclassification.com/aeon-toolkit/{name}.zip"
_READERS = {".ts": read_ts, ".tsv": read_tsv, ".arff": read_arff}
_UEA = "UEA archive, https://www.timeseriesclassification.com. Cite Bagnall et al., arXiv:1811.00075, 2018."
_UCR = (
    "UCR archive, https://www.cs.ucr.edu/~eamonn/time_series_data_2018. Cite Dau et al., IEEE/CAA Journal of "
    "Automatica Sinica 6(6):1293-1305, 2019."
)


@dataclasses.dataclass(frozen=True)
class _Known:
    """A set of the UEA or UCR archive, with what is published about it."""

    source: str
    train: int
    test: int
    channels: int
    length: int
    classes: int
    sample_rate: float | None = None


_KNOWN = {
    "EigenWorms": _Known(_UEA, 128, 131, 6, 17_984, 5),
    "EthanolConcentration": _Known(_UEA, 261, 263, 3, 1_751, 4),
    "Heartbeat": _Known(_UEA, 204, 205, 61, 405, 2),
    "MotorImagery": _Known(_UEA, 278, 100, 64, 3_000, 2, 1_000.0),
    "SelfRegulationSCP1": _Known(_UEA, 268, 293, 6, 896, 2, 256.0),
    "SelfRegulationSCP2": _Known(_UEA, 200, 180, 7, 1_152, 2, 256.0),
    "ACSF1": _Known(_UCR, 100, 100, 1, 1_460, 10),
    "EOGHorizontalSignal": _Known(_UCR, 362, 362, 1, 1_250, 12),
    "EthanolLevel": _Known(_UCR, 504, 500, 1, 1_751, 4),
    "FordA": _Known(_UCR, 3_601, 1_320, 1, 500, 2),
    "HouseTwenty": _Known(_UCR, 40, 119, 1, 2_000, 2),
    "Lightning2": _Known(_UCR, 60, 61, 1, 637, 2),
    "PigCVP": _Known(_UCR, 104, 208, 1, 2_000, 52),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line in the table of known data sets.

    Attributes:
        name: what to give to `load`.
        state: ``"bundled"`` with the package, ``"cached"`` in the data folder, or ``"missing"`` there.
        task: classification or regression; None if the files must be read to know.
        cases: numbers of training, validation and test cases, or None if the files must be read to know.
        length: steps of every case, or None.
        channels: input channels, or None.
        classes: number of classes (0 for regression), or None.
        folder: where its files are or would be; None for bundled sets.
    """

    name: str
    state: State
    task: Task | None
    cases: tuple[int, int, int] | None
    length: int | None
    channels: int | None
    classes: int | None
    folder: pathlib.Path | None


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    download: bool = True,
    missing: Missing = "error",
) -> Dataset:
    """Load a data set by name, with the split it is published with.

    ``"ecg-rhythm"`` and ``"ecg-afib"`` (two ECG leads), ``"ecg-rhythm-envelope"`` and ``"ecg-afib-envelope"``
    (their beats only, see `slope_envelope`) come with the package. Others are looked for in the data folder
    (see `data_folder`) and downloaded into it if they are not there, but for ``"mnist"``, whose four published files
    belong into ``mnist/``; any set of the UCR and UEA archives can
    be put there by hand, as ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts`` (or ``.tsv``, ``.arff``).

    Args:
        name: the set's name, as listed by `available` or in its archive.
        root: the data folder, if not the default one.
        download: whether a set that is not there may be fetched.
        missing: what to do with missing values, see `read_ts`.

    Returns:
        The set. UEA and UCR sets have no validation split; see `Dataset.with_validation`.

    Raises:
        ValueError: the name is unknown, or the files are not what they should be.
        FileNotFoundError: the files are not there and must not be fetched. (This message and the next two say
            where to put which file.)
        ConnectionError: they could not be fetched.
        ModuleNotFoundError: fetching needs pooch.

    Example:
        ```python
        dataset = load("ecg-afib").standardised()
        dataset.train.inputs.shape  # (507, 900, 2)
        ```
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name must be the name of a data set, such as 'ecg-afib', not {_checks.shown(name)}.")
    download, missing = _checks.flag("download", download), check_missing(missing)
    if name in BUNDLED:
        return load_ecg(name)
    folder = data_folder(root)
    if name.lower() == MNIST:
        place = find_mnist(folder)
        if place is None:
            raise FileNotFoundError(
                f"{MNIST} is not in {folder}, and it is never downloaded: no stable address is known. Put its four "
                f"published files, {', '.join(FILES)} (with or without .gz), into {folder / MNIST}."
            )
        return read_mnist(place)
    read = read_ppg_dalia if name == _PPG else functools.partial(_read_archive, name, missing)
    found = _find(name, folder)
    if found is not None:
        verify(found, [file.relative_to(found).as_posix() for file in _files(name, found)])
        return read(found)
    if name != _PPG and name not in _KNOWN:
        names = [*BUNDLED, *_KNOWN, _PPG, MNIST]
        close = difflib.get_close_matches(name[:60], names, n=1, cutoff=0.5)
        own = name if re.fullmatch(r"[\w-]{1,60}", name) else "NAME"
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ArgumentError(
            f"no data set {_checks.shown(name)}. {hint}Known: {', '.join(names)}. Any other set of the UCR and UEA "
            f"archives works once {own}_TRAIN.ts and {own}_TEST.ts (or .tsv, .arff) are in {folder / own}."
        )
    url = _PPG_URL if name == _PPG else _ARCHIVE_URL.format(name=name)
    if name == _PPG:
        wanted = [{f"S{i}.pkl": f"S{i}/S{i}.pkl" for i in SUBJECTS}]
        by_hand = f"download {url}, unpack it, and put S1/S1.pkl to S15/S15.pkl into {folder / name}."
    else:
        files = [(f"{name}_TRAIN{ending}", f"{name}_TEST{ending}") for ending in _READERS]
        wanted = [{file: file for file in pair} for pair in files]
        by_hand = f"download {url}, unpack it, and put {files[0][0]} and {files[0][1]} into {folder / name}."
    if not download:
        raise FileNotFoundError(f"{name} is not in {folder}, and it is not to be downloaded. Instead: {by_hand}")
    return fetch(url, folder / name, wanted, read, by_hand)


def available(root: str | os.PathLike | None = None) -> tuple[Entry, ...]:
    """List the known data sets, and those that lie in the data folder.

    Args:
        root: the data folder, if not the default one.

    Returns:
        One entry a set: the bundled ones, then the others by name.
    """
    folder = data_folder(root)
    state: State
    entries = []
    for name in BUNDLED:
        dataset = load_ecg(name)
        assert dataset.validation is not None
        cases = (len(dataset.train), len(dataset.validation), len(dataset.test))
        entries.append(
            Entry(
                name,
                "bundled",
                dataset.task,
                cases,
                dataset.length,
                dataset.inputs_dim,
                dataset.classes,
                None,
            )
        )
    local = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    for name in sorted({*_KNOWN, _PPG, MNIST, *local}, key=str.lower):
        if name == MNIST:
            at = find_mnist(folder)
            state = "missing" if at is None else "cached"
            cases = (TRAIN, 0, TEST)
            entries.append(Entry(name, state, "classification", cases, PIXELS, 1, CLASSES, at or folder / name))
            continue
        found, known = _find(name, folder), _KNOWN.get(name)
        state = "missing" if found is None else "cached"
        place = found or folder / name
        if known is not None:
            cases = (known.train, 0, known.test)
            entry = Entry(name, state, "classification", cases, known.length, known.channels, known.classes, place)
        elif name == _PPG:
            entry = Entry(name, state, "regression", None, 49_920, 6, 0, place)
        elif found is not None:
            entry = Entry(name, state, None, None, None, None, None, place)
        else:
            continue  # a folder of something else
        entries.append(entry)
    return tuple(entries)


def _find(name: str, root: pathlib.Path) -> pathlib.Path | None:
    """Find the folder that holds all files of a set, or None."""
    if name == _PPG:
        places = [root / name, root / name / "PPG_FieldStudy", root / "PPG_FieldStudy", root]
    elif pathlib.PurePath(name).name == name and "\0" not in name:
        places = [root / name, root]
    else:  # a path is no name of a set
        places = []
    return next((place for place in places if _files(name, place)), None)


def _files(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Return the files of a set in a folder, training before test, or nothing if not all are there."""
    if name == _PPG:
        alternatives = [[folder / f"S{i}" / f"S{i}.pkl" for i in SUBJECTS]]
    else:
        alternatives = [[folder / f"{name}_{side}{ending}" for side in ("TRAIN", "TEST")] for ending in _READERS]
    return next((tuple(files) for files in alternatives if all(map(os.path.isfile, files))), ())


def _read_archive(name: str, missing: Missing, folder: pathlib.Path) -> Dataset:
    """Read a set of the UCR or UEA archive and compare it with what is published about it."""
    train, test = (_READERS[file.suffix](file, missing=missing) for file in _files(name, folder))
    known = _KNOWN.get(name)
    dataset = dataset_from_cases(
        name,
        train,
        test,
        sample_rate=known.sample_rate if known else None,
        description=f"{name} of the UCR and UEA archives, with the published split.",
        source=known.source if known else str(folder),
        licence="None stated by the archive; see the source of the set before redistributing it.",
    )
    if known is not None:
        published = (known.train, known.test, known.length, known.channels, known.classes)
        here = (len(dataset.train), len(dataset.test), dataset.length, dataset.inputs_dim, dataset.classes)
        if here != published:
            raise ArgumentError(
                f"{folder} does not hold the published {name}: (training cases, test cases, steps, channels, "
                f"classes) are {here}, published are {published}. Delete the files and fetch them again."
            )
    return dataset
