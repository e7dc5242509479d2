"""The bundled ECG rhythm windows."""

import functools
import importlib.resources
import io

import numpy as np
from jaxtyping import Float

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks

from ._dataset import Dataset
from ._split import Split

_CLASSES = ("sinus rhythm", "atrial fibrillation", "bigeminy or trigeminy", "paced rhythm")
_CHANNELS = ("MLII", "chest")
SOURCE = (
    "MIT-BIH Arrhythmia Database 1.0.0, PhysioNet, https://physionet.org/content/mitdb/1.0.0/ "
    "(doi:10.13026/C2F305). Cite Moody and Mark, The impact of the MIT-BIH Arrhythmia Database, IEEE "
    "Engineering in Medicine and Biology 20(3):45-50, 2001, and Goldberger et al., PhysioBank, "
    "PhysioToolkit, and PhysioNet, Circulation 101(23):e215-e220, 2000."
)
LICENCE = "Open Data Commons Attribution License 1.0 (ODC-By), https://opendatacommons.org/licenses/by/1-0/"

_DESCRIPTION = """\
Windows of 10 s from half-hour two-lead ECG recordings, each inside one annotated rhythm, in mV at
90 Hz (band-pass 0.5-40 Hz, from 360 Hz). Split by patient: no patient is in two splits. Windows do not overlap;
at most 30 windows of sinus rhythm, 60 of paced and 100 of any other rhythm are from one patient. "Sinus rhythm"
is the annotation N: its beats need not be normal (ectopic beats, bundle branch block). Records
102 and 104 have no lead MLII and use V5 in its place. `groups` holds the patient, named after the first
record.
{counts}
Some rhythms have few patients:
{few}
Recalls of these classes are those of a few people and do not generalise to other patients."""

_ENVELOPE = """
The input is one channel at 45 Hz, computed from the leads. It shows when the heart beats and hides the shape of
the beats (see `slope_envelope`). With so few patients, a model of the leads learns to recognise the people; a
model of the envelope must use the rhythm."""

NAMES = ("ecg-rhythm", "ecg-afib", "ecg-rhythm-envelope", "ecg-afib-envelope")


def slope_envelope(
    signals: Float[np.ndarray, "cases length leads"], sample_rate: float
) -> Float[np.ndarray, "cases half 1"]:
    """Reduce ECG leads to one channel that rises at every heart beat, at half the sampling rate.

    The absolute slope of every lead is averaged over 80 ms, scaled to standard deviation 1 within the case and summed
    over the leads: the first steps of common beat detectors (Pan and Tompkins 1985). The envelope keeps the times of
    the beats; amplitude, polarity and most of the shape are lost. Every case is processed independently.

    Args:
        signals: ECG in any unit, shape (cases, length, leads).
        sample_rate: sampling rate in Hz.

    Returns:
        The envelope, without unit; float32 of shape (cases, half the length, 1).

    Raises:
        ArgumentTypeError: the signals are not an array of real numbers.
        ArgumentError: a lead is constant throughout a case or has a value that is not finite; the sampling rate is
            below 18.75 Hz, or so high that 80 ms are longer than a case.

    Source: J. Pan and W. J. Tompkins, IEEE Transactions on Biomedical Engineering 32 (1985), 230.

    Example:
        ```python
        slope_envelope(load("ecg-rhythm").test.inputs, 90.0).shape  # (cases, 450, 1)
        ```
    """
    try:
        signals = np.asarray(signals)
    except ValueError:
        raise ArgumentTypeError(
            "slope_envelope: signals must be one array; these have no common length or number of leads."
        ) from None
    if signals.dtype.kind not in "iuf":
        raise ArgumentTypeError(f"slope_envelope: signals must hold real numbers, not {signals.dtype}.")
    if signals.ndim != 3 or 0 in signals.shape:
        raise ArgumentError(
            f"slope_envelope: signals must have a shape (cases, length, leads) without 0, not {signals.shape}."
        )
    if signals.dtype not in (np.float32, np.float64):  # differences of short integers and of float16 overflow
        signals = signals.astype(np.float64)
    if not np.isfinite(signals).all():
        case, step, lead = np.argwhere(~np.isfinite(signals))[0]
        raise ArgumentError(
            f"slope_envelope: lead {lead} of case {case} is {signals[case, step, lead]} at step {step}. Fill missing "
            "values first, or leave the case out."
        )
    # 18.75 Hz rounds 80 ms to two steps.
    limit = "it must be finite and at least 18.75 Hz, for an average over 80 ms"
    sample_rate = _checks.constant("slope_envelope", "sample_rate", sample_rate, lambda x: 18.75 <= x < np.inf, limit)
    width, length = round(0.08 * sample_rate), signals.shape[1]
    if width > length:
        raise ArgumentError(
            f"slope_envelope: an average over 80 ms takes {width} steps at sample_rate={sample_rate:g} Hz, but a case "
            f"has {length}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        mean = _mean_slope(signals, width)
        spread = mean.std(axis=1, keepdims=True)
    if not spread.all():
        case, _, lead = np.argwhere(spread == 0)[0]
        raise ArgumentError(f"slope_envelope: lead {lead} of case {case} is constant. Leave the case out.")
    if not np.isfinite(spread).all():
        raise ArgumentError(
            "slope_envelope: differences between samples overflow. Scale the signals, for example to millivolts."
        )
    return (mean / spread).sum(axis=2, keepdims=True).astype(np.float32)


def _mean_slope(signals: np.ndarray, width: int) -> np.ndarray:
    """Return the absolute slope averaged over `width` steps, at every second step."""
    slope = np.abs(np.diff(signals, axis=1, prepend=signals[:, :1]))
    total = np.cumsum(np.pad(slope, ((0, 0), (width - width // 2, width // 2), (0, 0))), axis=1, dtype=np.float64)
    return (total[:, width:] - total[:, :-width])[:, ::2] / width


def load_ecg(name: str) -> Dataset:
    """Load a bundled data set: four rhythms or two of them, as leads or as envelope (see `NAMES`)."""
    arrays = _unpack()
    inputs, targets, sample_rate = arrays["inputs"], arrays["targets"], float(arrays["sample_rate"])
    patients, records, side = arrays["patients"], arrays["records"], arrays["split"]
    channel_names, description = _CHANNELS, _DESCRIPTION
    if name.endswith("-envelope"):
        inputs = slope_envelope(inputs, sample_rate)
        sample_rate, channel_names, description = sample_rate / 2, ("envelope",), description + _ENVELOPE
    classes = 2 if name.startswith("ecg-afib") else len(_CLASSES)

    def chosen(number: int) -> np.ndarray:
        return (side == number) & (targets < classes)

    def split(number: int) -> Split:
        here = chosen(number)
        lengths = np.full(here.sum(), inputs.shape[1], dtype=np.int32)
        return Split(inputs[here], targets[here], lengths, patients[here])

    lines, few = [], []
    for label in range(classes):
        people = []
        for number, title in enumerate(("train", "validation", "test")):
            here = chosen(number) & (targets == label)
            names, counts = np.unique(records[here], return_counts=True)
            people.append(len(np.unique(patients[here])))
            detail = ", ".join(f"{record}: {count}" for record, count in zip(names, counts, strict=True))
            lines.append(f"- {_CLASSES[label]}, {title}: {here.sum()} windows (by record, {detail})")
        if min(people) < 4:
            few.append(f"- {_CLASSES[label]}: {people[0]} in train, {people[1]} in validation, {people[2]} in test")
    return Dataset(
        name=name,
        train=split(0),
        validation=split(1),
        test=split(2),
        task="classification",
        class_names=_CLASSES[:classes],
        channel_names=channel_names,
        sample_rate=sample_rate,
        description=description.format(counts="\n".join(lines), few="\n".join(few)),
        source=SOURCE,
        licence=LICENCE,
    )


@functools.cache
def _unpack() -> dict[str, np.ndarray]:
    """Read the bundled file once. Callers must not change the arrays."""
    packed = importlib.resources.files("echograd.workbench.data").joinpath("_bundled", "ecg_rhythm.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        arrays = dict(file)
    signals = np.cumsum(arrays.pop("differences"), axis=1, dtype=np.int32) * arrays["resolution"]
    return {**arrays, "inputs": signals.astype(np.float32), "targets": arrays["labels"].astype(np.int32)}
