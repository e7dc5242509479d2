"""The bundled ECG rhythm windows."""

import functools
import importlib.resources
import io

import numpy as np
from jaxtyping import Float

from echograd import ArgumentTypeError

from . import _checks
from ._dataset import Dataset, Split
from ._errors import DataError

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
Windows of 10 s from half-hour two-lead ECG recordings, each wholly inside one annotated rhythm, in mV at
90 Hz (band-pass 0.5-40 Hz, from 360 Hz). Split by patient: nobody is on two sides. Windows do not overlap; at
most 30 of sinus rhythm, 60 of paced and 100 of any other rhythm are from one patient. "Sinus rhythm" is what
the annotators wrote as N: the beats in it need not be normal (ectopic beats, bundle branch block). Records
102 and 104 have no lead MLII and give V5 in its place. `groups` holds the patient, named after the first
record.
{counts}
Few patients have some of the rhythms:
{few}
Recalls of these classes are those of a handful of people; they do not carry over to patients in general."""

_ENVELOPE = """
Inputs are not the leads but one channel at 45 Hz made from them, which shows when the heart beats and hides
what a beat looks like (see `slope_envelope`). With so few patients a model given the leads learns to tell the
people apart; given the envelope it has to use the rhythm."""

NAMES = ("ecg-rhythm", "ecg-afib", "ecg-rhythm-envelope", "ecg-afib-envelope")


def slope_envelope(
    signals: Float[np.ndarray, "cases length leads"], sample_rate: float
) -> Float[np.ndarray, "cases half 1"]:
    """Reduce ECG leads to one channel that rises at every heart beat, at half the sampling rate.

    The absolute slope of every lead is averaged over 80 ms, scaled to standard deviation 1 within the window
    and added up over the leads: the first steps of common beat detectors (Pan and Tompkins 1985). Amplitude,
    polarity and most of the shape of the beats are gone; their times stay. Every case is treated by itself.

    Args:
        signals: ECG in any unit.
        sample_rate: in Hz.

    Returns:
        The envelope, without unit; float32.

    Raises:
        TypeError: the signals are no array of real numbers, or the rate is no number.
        ValueError: a lead is flat throughout a case or has a value that is not finite, or the sampling rate is too low
            or takes 80 ms for more steps than a case has.
    """
    try:
        signals = np.asarray(signals)
    except ValueError:
        raise ArgumentTypeError("signals must be an array; these have no common length or number of leads.") from None
    if signals.dtype.kind not in "iuf":
        raise ArgumentTypeError(f"signals must hold real numbers, not {signals.dtype}.")
    if signals.ndim != 3 or 0 in signals.shape:
        raise DataError(f"signals must be (cases, length, leads), none of them 0, not {signals.shape}.")
    if signals.dtype not in (np.float32, np.float64):  # in which differences neither wrap around nor overflow
        signals = signals.astype(np.float64)
    if not np.isfinite(signals).all():
        case, step, lead = np.argwhere(~np.isfinite(signals))[0]
        raise DataError(
            f"lead {lead} of case {case} is {signals[case, step, lead]} at step {step}. Fill missing values first, or "
            "leave the case out."
        )
    sample_rate = _checks.real("sample_rate", sample_rate)
    width, length = round(0.08 * sample_rate), signals.shape[1]
    if width < 2:
        raise DataError(f"an average over 80 ms needs at least 25 Hz, not {sample_rate:g} Hz.")
    if width > length:
        raise DataError(f"an average over 80 ms takes {width} steps at {sample_rate:g} Hz, and a case has {length}.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = _mean_slope(signals, width)
        spread = mean.std(axis=1, keepdims=True)
    if not spread.all():
        case, _, lead = np.argwhere(spread == 0)[0]
        raise DataError(f"lead {lead} of case {case} is flat; leave the case out.")
    if not np.isfinite(spread).all():
        raise DataError("differences between samples overflow. Scale the signals, to millivolts say.")
    return (mean / spread).sum(axis=2, keepdims=True).astype(np.float32)


def _mean_slope(signals: np.ndarray, width: int) -> np.ndarray:
    """Average the absolute slope over so many steps, at every second step."""
    slope = np.abs(np.diff(signals, axis=1, prepend=signals[:, :1]))
    total = np.cumsum(np.pad(slope, ((0, 0), (width - width // 2, width // 2), (0, 0))), axis=1, dtype=np.float64)
    return (total[:, width:] - total[:, :-width])[:, ::2] / width


def load_ecg(name: str) -> Dataset:
    """Unpack a bundled set: four rhythms or two of them, as leads or as envelope (see `NAMES`)."""
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
    """Read the bundled file once; callers copy what they hand on."""
    packed = importlib.resources.files("echograd.workbench.data").joinpath("_bundled", "ecg_rhythm.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        arrays = dict(file)
    signals = np.cumsum(arrays.pop("differences"), axis=1, dtype=np.int32) * arrays["resolution"]
    return {**arrays, "inputs": signals.astype(np.float32), "targets": arrays["labels"].astype(np.int32)}
