"""Reader of WFDB records: the header, signals of format 212 or 16, and the annotations."""

import dataclasses
import math
import pathlib
import struct

import numpy as np
from jaxtyping import Float, Int

# Annotation codes of the MIT format (WFDB's ecgcodes.h) that carry no beat and no label of their own.
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_INVALID = {"212": -2048, "16": -32768}  # what each format stores where there is no sample
_RHYTHM = 28  # printed as "+": the rhythm changes here, and the note names the new one


@dataclasses.dataclass(frozen=True)
class Record:
    """One WFDB record.

    Attributes:
        name: the record's name, e.g. ``"100"``.
        sample_rate: samples per second and signal, in Hz.
        signals: the samples in physical units, shape (length, signals); NaN where the file marks one as invalid.
        units: the physical unit of each signal, e.g. ``("mV", "mV")``.
        channel_names: the description of each signal, e.g. ``("MLII", "V1")``.
        comments: the header's comment lines, without the ``#``.
    """

    name: str
    sample_rate: float
    signals: Float[np.ndarray, "length signals"]
    units: tuple[str, ...]
    channel_names: tuple[str, ...]
    comments: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The annotations of one WFDB record, in order of time.

    Attributes:
        samples: the sample number of each annotation, shape (n,).
        codes: the annotation code of each, shape (n,) (1 is a normal beat, 28 a change of rhythm).
        notes: the text attached to each, ``""`` where there is none.
    """

    samples: Int[np.ndarray, " n"]
    codes: Int[np.ndarray, " n"]
    notes: tuple[str, ...]

    @property
    def is_beat(self) -> np.ndarray:
        """True where the annotation marks a heart beat, shape (n,)."""
        # The codes for which WFDB's isqrs() is true.
        return np.isin(self.codes, [*range(1, 14), 25, 30, 31, 34, 35, 38, 41])

    def rhythms(self, length: int) -> list[tuple[str, int, int]]:
        """List the stretches of one rhythm as (name, first sample, sample after the last).

        Args:
            length: number of samples in the record, where the last stretch ends.

        Returns:
            Stretches in order of time; the name has no opening bracket (``"N"``, ``"AFIB"``).

        Raises:
            ValueError: a rhythm begins after the end of the record.
        """
        changes = [
            (int(sample), note.rstrip("\0").strip().removeprefix("("))
            for sample, code, note in zip(self.samples, self.codes, self.notes, strict=True)
            if code == _RHYTHM and note.startswith("(")
        ]
        late = max((start for start, _ in changes), default=0)
        if late > length:
            raise ValueError(
                f"a rhythm begins at sample {late} of a record of {length}. Are these the annotations of that record?"
            )
        ends = [start for start, _ in changes[1:]] + [length]
        return [(name, start, end) for (start, name), end in zip(changes, ends, strict=True) if end > start]


def read_wfdb(path: str | pathlib.Path) -> Record:
    """Read a WFDB record: its header and its signals.

    All signals must lie in one file of format 212 (as in the MIT-BIH databases) or 16, at one
    sampling rate. The header's checksums are compared with the samples.

    Args:
        path: the record without its extension, or its ``.hea`` file.

    Returns:
        The record, with signals in physical units.

    Raises:
        FileNotFoundError: the header or the signal file is missing.
        ValueError: the header is of a kind not read here, or the samples do not agree with it.

    Example:
        ```python
        record = read_wfdb("mitdb/100")
        record.signals.shape, record.sample_rate  # ((650000, 2), 360.0)
        ```
    """
    header = _with_suffix(path, ".hea")
    lines = [line.strip() for line in _read_bytes(header).decode("ascii", errors="replace").splitlines()]
    comments = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    if not fields or len(fields[0]) < 3:
        raise ValueError(f"{header}: not a WFDB header (its first line names record, signals and rate).")
    name, count = fields[0][0], fields[0][1]
    if "/" in name:
        raise ValueError(f"{header}: a multi-segment record is not read here; read its segments one by one.")
    signal_lines = fields[1:]
    if not count.isdecimal() or len(signal_lines) != int(count) or any(len(line) < 2 for line in signal_lines):
        raise ValueError(f"{header}: {count} signals announced, {len(signal_lines)} described.")
    files = {line[0] for line in signal_lines}
    formats = {line[1] for line in signal_lines}
    if len(files) != 1 or len(formats) != 1 or not formats <= {"212", "16"}:
        raise ValueError(
            f"{header}: signals in files {sorted(files)} of formats {sorted(formats)}. Only records with all "
            "signals in one file of format 212 or 16 are read here; convert others with WFDB's xform."
        )
    signals = len(signal_lines)
    data_file = header.parent / files.pop()
    raw = np.frombuffer(_read_bytes(data_file), dtype=np.uint8)
    digital = _decode_212(raw) if formats == {"212"} else raw[: raw.size // 2 * 2].view("<i2").astype(np.int32)
    announced = fields[0][3] if len(fields[0]) > 3 else "0"
    if not announced.isdecimal():
        raise ValueError(f"{header}: {announced!r} is no number of samples.")
    length = int(announced) or digital.size // signals  # zero is how a header leaves the number open
    spare = digital.size - length * signals
    # Format 212 may fill its last pair up; what else is left over is harmless only if checksums vouch for the rest.
    summed = all(len(line) > 6 for line in signal_lines)
    excess = spare > 1 if formats == {"212"} else raw.size > 2 * length * signals
    if spare < 0 or not length or (excess and not summed):
        raise ValueError(
            f"{data_file}: {digital.size / signals:g} samples where the header announces {length}. The file is not "
            "whole, or is not the header's; fetch both again."
        )
    digital = digital[: length * signals].reshape(length, signals)

    physical = np.empty(digital.shape, dtype=np.float64)
    units, channel_names = [], []
    for i, line in enumerate(signal_lines):
        gain, baseline, unit = _gain(line, f"{header}: signal {i}")
        if len(line) > 6 and (int(digital[:, i].sum()) - int(line[6])) % 65536:
            raise ValueError(f"{data_file}: signal {i} disagrees with the header's checksum; fetch it again.")
        physical[:, i] = (digital[:, i] - baseline) / gain
        physical[digital[:, i] == _INVALID[line[1]], i] = np.nan
        units.append(unit)
        channel_names.append(" ".join(line[8:]) or f"signal {i}")
    sample_rate = _finite(fields[0][2].split("/")[0].split("(")[0], f"{header}: sampling rate")
    if sample_rate <= 0:
        raise ValueError(f"{header}: sampling rate {sample_rate:g} Hz. Write the rate of the recording there.")
    return Record(name, sample_rate, physical, tuple(units), tuple(channel_names), comments)


def read_wfdb_annotations(path: str | pathlib.Path) -> Annotations:
    """Read a WFDB annotation file in the MIT format.

    Args:
        path: the file, e.g. ``mitdb/100.atr`` (or the record without extension, for ``.atr``).

    Returns:
        The annotations in order of time.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file ends in the middle of an annotation or without its end mark, or goes back past sample 0.
    """
    file = pathlib.Path(path)
    file = file if file.suffix else file.with_suffix(".atr")
    data = _read_bytes(file)
    samples: list[int] = []
    codes: list[int] = []
    notes: list[str] = []
    time, at = 0, 0
    try:
        while True:
            (word,) = struct.unpack_from("<H", data, at)
            at += 2
            code, value = word >> 10, word & 0x3FF
            if word == 0:
                break
            if code == _SKIP:
                # A long interval, stored as a PDP-11 did: high half first, each half little-endian.
                high, low = struct.unpack_from("<hH", data, at)
                time += (high << 16) + low
                at += 4
            elif code == _AUX:
                note = data[at : at + value]
                if len(note) < value:
                    raise struct.error
                at += value + value % 2
                if notes:
                    notes[-1] = note.decode("ascii", errors="replace")
            elif code not in (_NUM, _SUB, _CHN):
                time += value
                if time < 0:
                    raise ValueError(f"{file}: an annotation at sample {time}, before the first. Fetch the file again.")
                samples.append(time)
                codes.append(code)
                notes.append("")
    except struct.error:
        raise ValueError(f"{file}: ends without the end mark; it is cut short, or not a WFDB file.") from None
    return Annotations(np.asarray(samples, dtype=np.int64), np.asarray(codes, dtype=np.int64), tuple(notes))


def _decode_212(raw: np.ndarray) -> np.ndarray:
    """Unpack pairs of 12-bit two's complement numbers from groups of three bytes."""
    triples = raw[: raw.size // 3 * 3].reshape(-1, 3).astype(np.int32)
    pairs = np.empty((triples.shape[0], 2), dtype=np.int32)
    pairs[:, 0] = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    pairs[:, 1] = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    values = np.where(pairs >= 2048, pairs - 4096, pairs).reshape(-1)
    if raw.size % 3 == 2:  # an odd number of samples: the last one has two bytes of its own
        last = int(raw[-2]) | (int(raw[-1]) & 0x0F) << 8
        values = np.append(values, last - 4096 if last >= 2048 else last)
    return values


def _gain(line: list[str], where: str) -> tuple[float, float, str]:
    """Take gain, baseline and unit from a signal line such as ``100.dat 212 200(1024)/mV 11 1024``."""
    text = line[2] if len(line) > 2 else "200"
    text, _, unit = text.partition("/")
    number, _, baseline = text.partition("(")
    zero = line[4] if len(line) > 4 else "0"
    baseline = baseline.rstrip(")") or zero
    return _finite(number, f"{where}: gain") or 200.0, _finite(baseline, f"{where}: baseline"), unit or "mV"


def _finite(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} {text!r} is not a finite number. Correct the header, or fetch it again.")
    return number


def _with_suffix(path: str | pathlib.Path, suffix: str) -> pathlib.Path:
    file = pathlib.Path(path)
    return file if file.suffix == suffix else file.with_name(file.name + suffix)


def _read_bytes(file: pathlib.Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. A WFDB record needs its .hea, .dat and .atr side by side.")
    return file.read_bytes()
