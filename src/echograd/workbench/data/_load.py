"""Data sets by name."""

import dataclasses
import difflib
import functools
import os
import pathlib
import re
from typing import Literal

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._checks import shown

from ._arff import read_arff
from ._by_hand import FAMILIES, load_by_hand
from ._cases import Missing, check_missing, dataset_from_cases
from ._dataset import Dataset, Task
from ._ecg import NAMES as BUNDLED, load_ecg
from ._errors import DataError
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
    """A data set of the UEA or UCR archive, with its published sizes."""

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
    """A known data set, as listed by `available`. A value is None if only the files themselves tell it.

    Attributes:
        name: the name that `load` takes.
        state: ``"bundled"`` with the package, ``"cached"`` in the data folder, or ``"missing"`` there.
        task: ``"classification"`` or ``"regression"``.
        cases: numbers of training, validation and test cases.
        length: number of steps of every case.
        channels: number of input channels.
        classes: number of classes; 0 for regression.
        folder: folder of the files, even if they are missing; None for bundled data sets.
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
    """Load a data set by name, with its published split.

    ``"ecg-rhythm"`` and ``"ecg-afib"`` (two ECG leads), ``"ecg-rhythm-envelope"`` and ``"ecg-afib-envelope"``
    (beats only, see `slope_envelope`) are bundled with the package. Other data sets are read from the data folder (see
    `data_folder`) and downloaded if they are missing there. ``"mnist"`` is never downloaded: put its four published
    files into ``mnist/``. Neither are these, which have options in their names: ``"fsdd"``, ``"fsdd-patches"``,
    ``"fsdd-waveform"`` and ``"fsdd-theo"`` (or ``"fsdd-patches-theo"``, which hold out a speaker; see `read_fsdd`);
    ``"mit-bih-beats"`` (see `read_mit_bih_beats`); ``"troika-04"`` (see `read_troika`); ``"bonn-eeg-3"`` (fold 3 of
    ten, see `read_bonn_eeg`); ``"etth1-336"`` and ``"etth2-96"`` (the horizon, see `read_ett`). You can put any data
    set of the UCR and UEA archives into the folder by hand,
    as ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts`` (or ``.tsv``, ``.arff``).

    Args:
        name: name of the data set, as listed by `available` or in its archive.
        root: the data folder, if not the default one.
        download: whether a missing data set may be downloaded.
        missing: how to handle missing values, see `read_ts`.

    Returns:
        The data set. UEA and UCR data sets have no validation split; see `Dataset.with_validation`.

    Raises:
        ArgumentTypeError: an argument has the wrong type.
        ArgumentError: the name is unknown.
        DataError: a file is damaged, or not the published one.
        FileNotFoundError: the files are missing and `download` is False. (This message and the next two tell where to
            put which file.)
        ConnectionError: the download failed.
        ModuleNotFoundError: downloads need pooch.

    Example:
        ```python
        dataset = load("ecg-afib").standardised()
        dataset.train.inputs.shape  # (507, 900, 2)
        ```
    """
    _checks.instance("load", "name", name, str, "the name of a data set, such as 'ecg-afib'")
    download, missing = _checks.flag("load", "download", download), check_missing("load", missing)
    if name in BUNDLED:
        return load_ecg(name)
    folder = data_folder(root)
    if name.lower() == MNIST:
        place = find_mnist(folder)
        if place is None:
            raise FileNotFoundError(
                f"{MNIST} is not in {folder}, and it is not downloaded, because no stable address is known. Put its "
                f"four published files, {', '.join(FILES)} (with or without .gz), into {folder / MNIST}."
            )
        return read_mnist(place)
    placed = load_by_hand(name, folder)
    if placed is not None:
        return placed
    read = read_ppg_dalia if name == _PPG else functools.partial(_read_archive, name, missing)
    found = _find(name, folder)
    if found is not None:
        verify(found, [file.relative_to(found).as_posix() for file in _files(name, found)])
        return read(found)
    if name != _PPG and name not in _KNOWN:
        names = [*BUNDLED, *_KNOWN, _PPG, MNIST, *(family.name for family in FAMILIES)]
        close = difflib.get_close_matches(name[:60], names, n=1, cutoff=0.5)
        own = name if re.fullmatch(r"[\w-]{1,60}", name) else "NAME"
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ArgumentError(
            f"load: there is no data set {shown(name)}. {hint}Known: {', '.join(names)}. To use another data set of "
            f"the UCR and UEA archives, put {own}_TRAIN.ts and {own}_TEST.ts (or .tsv, .arff) into {folder / own}."
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
        raise FileNotFoundError(f"{name} is not in {folder}, and downloads are switched off. By hand: {by_hand}")
    return fetch(url, folder / name, wanted, read, by_hand)


def available(root: str | os.PathLike | None = None) -> tuple[Entry, ...]:
    """List the known data sets, and those in the data folder.

    Args:
        root: the data folder, if not the default one.

    Returns:
        One entry for every data set: the bundled ones first, then the others by name.

    Example:
        ```python
        [entry.name for entry in available() if entry.state == "cached"]
        ```
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
    for family in FAMILIES:
        at = family.place(folder)
        state = "missing" if at is None else "cached"
        place = at or folder / family.folders[0]
        entries.append(Entry(family.name, state, family.task, None, *family.shape, place))
    local = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    local -= {name for family in FAMILIES for name in family.folders}
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
            continue  # another folder
        entries.append(entry)
    bundled, others = entries[: len(BUNDLED)], entries[len(BUNDLED) :]
    return (*bundled, *sorted(others, key=lambda entry: entry.name.lower()))


def _find(name: str, root: pathlib.Path) -> pathlib.Path | None:
    """Return the folder that holds all files of a data set, or None."""
    if name == _PPG:
        places = [root / name, root / name / "PPG_FieldStudy", root / "PPG_FieldStudy", root]
    elif pathlib.PurePath(name).name == name and "\0" not in name:
        places = [root / name, root]
    else:  # a path is not a name
        places = []
    return next((place for place in places if _files(name, place)), None)


def _files(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """Return the files of a data set in a folder, training before test, or () if one is missing."""
    if name == _PPG:
        alternatives = [[folder / f"S{i}" / f"S{i}.pkl" for i in SUBJECTS]]
    else:
        alternatives = [[folder / f"{name}_{side}{ending}" for side in ("TRAIN", "TEST")] for ending in _READERS]
    return next((tuple(files) for files in alternatives if all(map(os.path.isfile, files))), ())


def _read_archive(name: str, missing: Missing, folder: pathlib.Path) -> Dataset:
    """Read a data set of the UCR or UEA archive, and compare its sizes with the published ones."""
    train, test = (_READERS[file.suffix](file, missing=missing) for file in _files(name, folder))
    known = _KNOWN.get(name)
    dataset = dataset_from_cases(
        name,
        train,
        test,
        sample_rate=known.sample_rate if known else None,
        description=f"{name} of the UCR and UEA archives, with the published split.",
        source=known.source if known else str(folder),
        licence="The archive states no licence; see the source of the data set before redistributing it.",
    )
    if known is not None:
        published = (known.train, known.test, known.length, known.channels, known.classes)
        here = (len(dataset.train), len(dataset.test), dataset.length, dataset.inputs_dim, dataset.classes)
        if here != published:
            raise DataError(
                f"{folder} does not hold the published {name}: (training cases, test cases, steps, channels, "
                f"classes) are {here}, published are {published}. Delete the files and download them again."
            )
    return dataset
