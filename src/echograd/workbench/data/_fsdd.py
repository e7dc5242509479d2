"""Reader of the Free Spoken Digit Dataset."""

import pathlib
import re
from typing import Literal

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError
from echograd._internal import _checks
from echograd._internal._checks import shown

from .._paths import as_path
from ._dataset import Dataset
from ._errors import DataError
from ._split import Split
from ._wav import read_wav

NAME = "fsdd"
View = Literal["mel", "patches", "waveform"]
_VIEWS = ("mel", "patches", "waveform")
_RATE = 8000
_FRAME, _HOP, _BANDS = 256, 80, 32  # 32 ms, 10 ms
_PATCH = 16
_TEST = 5  # indices 0 to 4 are the published test cases
_FILE = re.compile(r"(\d)_([A-Za-z]+)_(\d+)\.wav")


def find_digits(folder: pathlib.Path) -> list[tuple[int, str, int, pathlib.Path]]:
    """Return (digit, speaker, index, file) of all recordings in a folder, in this order."""
    found = [(name, file) for file in folder.glob("*.wav") if (name := _FILE.fullmatch(file.name))]
    return sorted((int(name[1]), name[2], int(name[3]), file) for name, file in found)


def log_mel(
    samples: Float[np.ndarray, " steps"], sample_rate: float = _RATE, bands: int = _BANDS
) -> Float[np.ndarray, "frames bands"]:
    """Return the logarithm of the power in bands of the mel scale, in frames of 32 ms every 10 ms.

    Every frame is weighted by a Hann window. The bands are triangles of equal width on the mel scale
    2595 log10(1 + f / 700 Hz), from 0 Hz to half the sampling rate. A power below 1e-8 counts as 1e-8. A sound shorter
    than a frame is one frame, padded with zeros.

    Args:
        samples: sound from -1 to 1.
        sample_rate: sampling rate in Hz.
        bands: number of bands.

    Raises:
        ArgumentError: the samples are empty or not finite numbers, or an argument is out of range.

    Source: S. Davis and P. Mermelstein, IEEE Transactions on Acoustics, Speech, and Signal Processing 28 (1980), 357.

    Example:
        ```python
        log_mel(np.sin(np.arange(8000) * 0.5)).shape  # (97, 32)
        ```
    """
    rate = _checks.constant(
        "log_mel", "sample_rate", sample_rate, lambda x: 1000 <= x < 1e6, "it must be 1 kHz to 1 MHz"
    )
    bands = _checks.integer("log_mel", "bands", bands, 1, 128)
    sound = np.asarray(samples)
    if sound.ndim != 1 or sound.dtype.kind not in "iuf" or not sound.size or not np.isfinite(sound).all():
        raise ArgumentError(f"log_mel: samples={shown(samples)} must be finite numbers of shape (steps,), not empty.")
    frame, hop = round(rate * _FRAME / _RATE), round(rate * _HOP / _RATE)
    sound = np.pad(sound.astype(np.float64), (0, max(frame - len(sound), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(frame), axis=1)) ** 2 / frame
    top = 2595 * np.log10(1 + rate / 1400)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(frame, 1 / rate)[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(np.minimum(rise, fall), 0)
    return np.log(np.maximum(power @ weights, 1e-8)).astype(np.float32)


def read_fsdd(folder: str | pathlib.Path, *, view: View = "mel", speaker: str | None = None) -> Dataset:
    """Read the Free Spoken Digit Dataset: the digits 0 to 9, spoken by several people.

    Recordings have 1,148 to 18,262 samples at 8 kHz. A case is one of three views of it:

    - ``"mel"``: 32 mel bands every 10 ms (see `log_mel`), at most 226 steps;
    - ``"patches"``: 16 consecutive samples as the channels of one step, at most 1,142 steps; the last patch is padded
      with zeros;
    - ``"waveform"``: the samples, one channel.

    Args:
        folder: the folder ``recordings``, with ``0_george_0.wav`` and so on.
        view: see above.
        speaker: hold out this speaker: all recordings of the person are the test cases. By default the published
            split is used: indices 0 to 4 of every digit and speaker are the test cases.

    Returns:
        The data set, without a validation split, with speakers as groups. (So `Dataset.with_validation` draws whole
        speakers.)

    Raises:
        FileNotFoundError: the folder holds no recordings.
        ArgumentTypeError: `folder` is not a path.
        ArgumentError: the view or the speaker is unknown.
        DataError: a file is damaged or has another format; a side of the split is empty.

    Example:
        ```python
        dataset = read_fsdd("recordings", speaker="theo").standardised()
        ```
    """
    folder = as_path("read_fsdd", "folder", folder)
    view = _checks.choice("read_fsdd", "view", view, _VIEWS)
    digits = find_digits(folder)
    if not digits:
        raise FileNotFoundError(f"{folder} holds no recordings such as 0_george_0.wav.")
    speakers = sorted({name for _, name, _, _ in digits})
    if speaker is not None and speaker not in speakers:
        raise ArgumentError(f"read_fsdd: speaker={shown(speaker)} is none of {', '.join(speakers)}.")
    series = [_view(file, view) for *_, file in digits]
    targets = np.array([digit for digit, *_ in digits], np.int32)
    names = np.array([name for _, name, _, _ in digits])
    test = np.array([index < _TEST for _, _, index, _ in digits]) if speaker is None else names == speaker
    if test.all() or not test.any():
        raise DataError(f"{folder}: {test.sum()} of {len(test)} recordings are test cases. Is the folder complete?")
    length = max(map(len, series))

    def split(side: np.ndarray) -> Split:
        return Split.from_series([series[i] for i in np.flatnonzero(side)], targets[side], names[side], length=length)

    rule = f"all of {speaker} are test" if speaker else "indices 0 to 4 of every digit and speaker are test (published)"
    bands = {"mel": _BANDS, "patches": _PATCH, "waveform": 1}[view]
    title = {"mel": "mel band", "patches": "sample", "waveform": "waveform"}[view]
    return Dataset(
        name=name_of(view, speaker),
        train=split(~test),
        validation=None,
        test=split(test),
        task="classification",
        class_names=tuple("0123456789"),
        channel_names=tuple(f"{title} {i}" for i in range(bands)) if bands > 1 else (title,),
        sample_rate=_RATE / {"mel": _HOP, "patches": _PATCH, "waveform": 1}[view],
        description=f"Spoken digits, view {view!r}. Speakers {', '.join(speakers)}; {rule}.",
        source="Free Spoken Digit Dataset (Jackson et al.), https://github.com/Jakobovski/free-spoken-digit-dataset.",
        licence="CC BY-SA 4.0, as stated by the repository",
    )


def name_of(view: str, speaker: str | None) -> str:
    """Return the name that `load` takes."""
    return NAME + ("" if view == "mel" else f"-{view}") + (f"-{speaker}" if speaker else "")


def _view(file: pathlib.Path, view: str) -> np.ndarray:
    """Return a recording as an array of shape (steps, channels)."""
    samples, rate = read_wav(file)
    if rate != _RATE or samples.shape[1] != 1:
        raise DataError(f"{file}: {samples.shape[1]} channels at {rate:g} Hz; expected one at {_RATE} Hz. Resample it.")
    if view == "mel":
        return log_mel(samples[:, 0])
    if view == "patches":
        return np.pad(samples[:, 0], (0, -len(samples) % _PATCH)).reshape(-1, _PATCH)
    return samples
