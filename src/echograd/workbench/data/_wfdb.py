"""Reader of WFDB records: the header, signals of format 212 or 16, and the annotations."""

import array
import dataclasses
import math
import os
import pathlib
import re
import struct

import numpy as np
from jaxtyping import Float, Int

from . import _checks
from ._errors import DataError
from ._reading import read_bytes

# Annotation codes of the MIT format (WFDB's ecgcodes.h) that carry no beat and no label of their own.
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_INVALID = {"212": -2048, "16": -32768}  # what each format stores where there is no sample
_NOTE = 22  # about the file itself where its text begins with two number signs
_RESOLUTION = "## time resolution: "
_LAST = 49  # of the codes that WFDB knows or leaves to its users
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,5})?")
_HEADER = 1 << 22  # bytes of the longest header
_BESIDE = "A WFDB record needs its .hea, .dat and .atr side by side."
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
    """The annotations of one WFDB record, in the order of the file.

    Attributes:
        samples: the time of each annotation, shape (n,): the number of a sample of the record, or, if `resolution` is
            not None, a number of ticks of the file's own clock.
        codes: the annotation code of each, shape (n,) (1 is a normal beat, 28 a change of rhythm).
        notes: the text attached to each, ``""`` where there is none.
        resolution: ticks per second of the file's own clock, or None if it counts the record's samples. `at_rate`
            converts.
    """

    samples: Int[np.ndarray, " n"]
    codes: Int[np.ndarray, " n"]
    notes: tuple[str, ...]
    resolution: float | None = None

    @property
    def is_beat(self) -> np.ndarray:
        """True where the annotation marks a heart beat, shape (n,)."""
        # The codes for which WFDB's isqrs() is true.
        return np.isin(self.codes, [*range(1, 14), 25, 30, 31, 34, 35, 38, 41])

    def at_rate(self, sample_rate: float) -> "Annotations":
        """Count time in samples of the record, where the file has a clock of its own.

        Args:
            sample_rate: the record's sampling rate in Hz (`Record.sample_rate`).

        Returns:
            The annotations at the nearest samples; the same annotations if they count samples already.
        """
        rate = _checks.real("sample_rate", sample_rate)
        if rate <= 0:
            raise DataError(f"sample_rate must be positive, not {rate:g} Hz.")
        if self.resolution is None:
            return self
        with np.errstate(over="ignore"):
            samples = np.floor(self.samples * rate / self.resolution + 0.5)
        if not (samples < 1 << 53).all():
            raise DataError(f"annotations at {self.resolution:g} Hz have no sample numbers at {rate:g} Hz.")
        return dataclasses.replace(self, samples=samples.astype(np.int64), resolution=None)

    def rhythms(self, length: int) -> list[tuple[str, int, int]]:
        """List the stretches of one rhythm as (name, first sample, sample after the last).

        Args:
            length: number of samples in the record, where the last stretch ends.

        Returns:
            Stretches in order of time; the name has no opening bracket (``"N"``, ``"AFIB"``).

        Raises:
            ValueError: a rhythm begins after the end of the record, or the annotations do not count samples.
        """
        length = _checks.integer("length", length, 1)
        if self.resolution is not None:
            raise DataError(
                f"the annotations count {self.resolution:g} ticks per second, not samples. Convert them first: "
                "annotations.at_rate(record.sample_rate)."
            )
        changes = [
            (int(sample), note.strip().removeprefix("("))
            for sample, code, note in zip(self.samples, self.codes, self.notes, strict=True)
            if code == _RHYTHM and note.startswith("(")
        ]
        changes.sort(key=lambda change: change[0])
        late = max((start for start, _ in changes), default=0)
        if late > length:
            raise DataError(
                f"a rhythm begins at sample {late} of a record of {length}. Are these the annotations of that record?"
            )
        ends = [start for start, _ in changes[1:]] + [length]
        return [(name, start, end) for (start, name), end in zip(changes, ends, strict=True) if end > start]


def read_wfdb(path: str | pathlib.Path) -> Record:
    """Read a WFDB record: its header and its signals.

    All signals must lie in one file of format 212 (as in the MIT-BIH databases) or 16, at one
    sampling rate. The header's checksums are compared with the samples. A signal whose gain the header leaves open is
    read with 200 units per mV, as WFDB does.

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
    path = _checks.as_path(path)
    header = path if path.suffix == ".hea" else path.parent / f"{path.name}.hea"
    lines = [line.strip() for line in re.split(r"\r\n?|\n", _text(read_bytes(header, _BESIDE, _HEADER)))]
    comments = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    if not fields or len(fields[0]) < 3:
        raise DataError(f"{header}: not a WFDB header (its first line names record, signals and rate).")
    name = fields[0][0]
    if "/" in name:
        raise DataError(f"{header}: a multi-segment record is not read here; read its segments one by one.")
    signals = _integer(fields[0][1], f"{header}: the number of signals")
    sample_rate = _finite(re.split(r"[/(]", fields[0][2])[0], f"{header}: sampling rate")
    if sample_rate <= 0:
        raise DataError(f"{header}: sampling rate {sample_rate:g} Hz. Write the rate of the recording there.")
    announced = _integer((fields[0][3:] or ["0"])[0], f"{header}: the number of samples")
    if not signals:
        raise DataError(f"{header}: the record has no signals. `read_wfdb_annotations` reads its annotations.")
    described = [_Signal.of(line, f"{header}: signal {i}") for i, line in enumerate(fields[1:])]
    if len(described) != signals:
        raise DataError(f"{header}: {signals} signals announced, {len(described)} described.")
    files, formats = {signal.file for signal in described}, {signal.format for signal in described}
    if len(files) != 1 or len(formats) != 1 or not formats <= {"212", "16"}:
        raise DataError(
            f"{header}: signals in files {sorted(files)[:9]} of formats {sorted(formats)[:9]}. Only records with all "
            "signals in one file of format 212 or 16 are read here; convert others with WFDB's xform."
        )
    data_file = _beside(header, files.pop())
    raw = np.frombuffer(read_bytes(data_file, _BESIDE), dtype=np.uint8)
    digital = _decode_212(raw) if formats == {"212"} else raw[: raw.size // 2 * 2].view("<i2").astype(np.int32)
    length = announced or digital.size // signals  # zero is how a header leaves the number open
    spare = digital.size - length * signals
    # Format 212 may fill its last pair up; what else is left over is harmless only if checksums vouch for the rest.
    summed = all(signal.checksum is not None for signal in described)
    excess = spare > 1 if formats == {"212"} else raw.size > 2 * length * signals
    if spare < 0 or not length or (excess and not summed):
        raise DataError(
            f"{data_file}: {digital.size / signals:g} samples where the header announces {length}. The file is not "
            "whole, or is not the header's; fetch both again."
        )
    digital = digital[: length * signals].reshape(length, signals)

    physical = np.empty(digital.shape, dtype=np.float64)
    for i, signal in enumerate(described):
        column = digital[:, i]
        if signal.checksum is not None and (int(column.sum(dtype=np.int64)) - signal.checksum) % 65536:
            raise DataError(f"{data_file}: signal {i} disagrees with the header's checksum; fetch it again.")
        with np.errstate(over="ignore"):
            physical[:, i] = (column - signal.baseline) / signal.gain
        if not np.isfinite(physical[:, i]).all():
            raise DataError(
                f"{header}: signal {i}: values overflow with gain {signal.gain:g} and baseline {signal.baseline:g}. "
                "Correct the header, or fetch it again."
            )
        physical[column == _INVALID[signal.format], i] = np.nan
    units = tuple(signal.unit for signal in described)
    names = tuple(signal.name or f"signal {i}" for i, signal in enumerate(described))
    return Record(name, sample_rate, physical, units, names, comments)


def read_wfdb_annotations(path: str | pathlib.Path) -> Annotations:
    """Read a WFDB annotation file in the MIT format.

    Args:
        path: the file, e.g. ``mitdb/100.atr`` (or the record without extension, for ``.atr``).

    Returns:
        The annotations in the order of the file. What a file says about itself (its time resolution, its own types of
        annotation) is not among them.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file ends in the middle of an annotation or without its end mark, goes on after it, goes
            back past sample 0, or has codes without a meaning.
    """
    path = _checks.as_path(path)
    # A record's name may have a dot in it.
    file = path if path.suffix and os.path.isfile(path) else path.parent / f"{path.name}.atr"
    if path.suffix and not os.path.isfile(file):
        file = path
    data = read_bytes(file, _BESIDE)
    samples, codes = array.array("q"), array.array("q")
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
                if not notes:
                    raise DataError(f"{file}: a note before the first annotation. It is damaged, or not a WFDB file.")
                notes[-1] = _text(note).rstrip("\0")
            elif code not in (_NUM, _SUB, _CHN):
                time += value
                if time < 0:
                    raise DataError(f"{file}: an annotation at sample {time}, before the first. Fetch the file again.")
                if code > _LAST:
                    raise DataError(f"{file}: annotation code {code}, which has no meaning. Fetch the file again.")
                samples.append(time)
                codes.append(code)
                notes.append("")
    except struct.error:
        raise DataError(f"{file}: ends without the end mark; it is cut short, or not a WFDB file.") from None
    if data[at:].strip(b"\0"):
        raise DataError(f"{file}: goes on after its end mark; it is damaged, or not a WFDB file.")
    own, resolution = _own_header(file, samples, codes, notes)
    return Annotations(
        np.array(samples[own:], dtype=np.int64), np.array(codes[own:], dtype=np.int64), tuple(notes[own:]), resolution
    )


def _own_header(
    file: pathlib.Path, samples: array.array, codes: array.array, notes: list[str]
) -> tuple[int, float | None]:
    """Return how many annotations at the beginning are about the file itself, and the resolution they state."""
    resolution, defining, count = None, False, 0
    for time, code, note in zip(samples, codes, notes, strict=True):
        if time != 0 or code != _NOTE or not (defining or note.startswith("## ")):
            break
        count += 1
        if note.startswith(_RESOLUTION):
            resolution = _finite(note.removeprefix(_RESOLUTION).strip(), f"{file}: time resolution")
            if resolution <= 0:
                raise DataError(f"{file}: time resolution {resolution:g} Hz. Fetch the file again.")
        defining = note != "## end of definitions" and (defining or note == "## annotation type definitions")
    return count, resolution


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


@dataclasses.dataclass(frozen=True)
class _Signal:
    """A signal line of a header, such as ``100.dat 212 200(1024)/mV 11 1024 995 -22131 0 MLII``."""

    file: str
    format: str
    gain: float
    baseline: float
    unit: str
    checksum: int | None
    name: str

    @staticmethod
    def of(line: list[str], where: str) -> "_Signal":
        if len(line) < 2:
            raise DataError(f"{where}: only {' '.join(line)[:60]!r} is there, and not its file and format.")
        text, _, unit = (line[2] if len(line) > 2 else "200").partition("/")
        number, _, baseline = text.partition("(")
        zero = line[4] if len(line) > 4 else "0"
        return _Signal(
            line[0],
            line[1],
            _finite(number, f"{where}: gain") or 200.0,  # zero is how a header leaves the gain open
            _finite(baseline.removesuffix(")") or zero, f"{where}: baseline"),
            unit or "mV",
            _integer(line[6], f"{where}: checksum", signed=True) if len(line) > 6 else None,
            " ".join(line[8:]),
        )


def _beside(header: pathlib.Path, name: str) -> pathlib.Path:
    """Return a file that a header names, which must lie in the header's folder."""
    file = header.parent / name
    if pathlib.PurePath(name).name != name or name == ".." or "\\" in name or ":" in name or "\0" in name:
        raise DataError(
            f"{header}: the signals are said to be in {name[:60]!r}. A header names files of its own folder."
        )
    if os.path.realpath(file.parent) != os.path.dirname(os.path.realpath(file)):
        raise DataError(f"{file}: a link out of the header's folder. Put the file itself there.")
    return file


def _finite(text: str, what: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise DataError(f"{what} {text[:30]!r} is not a finite number. Correct the header, or fetch it again.")
    return number


def _integer(text: str, what: str, signed: bool = False) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}" if signed else r"[0-9]{1,15}", text):
        kind = "an integer" if signed else "an integer of 0 or more"
        raise DataError(f"{what} is {text[:30]!r}, which is not {kind}. Correct the header, or fetch it again.")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
