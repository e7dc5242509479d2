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

from echograd import ArgumentError
from echograd._internal import _checks

from .._paths import as_path
from ._errors import DataError
from ._reading import read_bytes

# Annotation codes of the MIT format (WFDB's ecgcodes.h) that are not annotations: intervals, fields and notes.
_SKIP, _NUM, _SUB, _CHN, _AUX = 59, 60, 61, 62, 63
_INVALID = {"212": -2048, "16": -32768}  # the value that marks an invalid sample in each format
_NOTE = 22  # a comment; its text begins with "## " if it is about the file itself
_RESOLUTION = "## time resolution: "
_LAST = 49  # the largest code that WFDB defines or reserves for users
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,5})?")
_HEADER = 1 << 22  # largest number of bytes in a header
_BESIDE = "A WFDB record needs its .hea, .dat and .atr side by side."
_RHYTHM = 28  # printed as "+": a change of rhythm; the note names the new rhythm


@dataclasses.dataclass(frozen=True)
class Record:
    """One WFDB record.

    Attributes:
        name: name of the record, e.g. ``"100"``.
        sample_rate: samples per second and signal, in Hz.
        signals: the samples in physical units, shape (length, signals); NaN if the file marks a sample as invalid.
        units: physical unit of each signal, e.g. ``("mV", "mV")``.
        channel_names: description of each signal, e.g. ``("MLII", "V1")``.
        comments: comment lines of the header, without the ``#``.
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
        samples: time of each annotation, shape (n,): the index of a sample of the record; if `resolution` is not None,
            the number of ticks of the clock of the file.
        codes: annotation code of each, shape (n,) (1 is a normal beat, 28 a change of rhythm).
        notes: text of each; ``""`` without text.
        resolution: ticks per second of the clock of the file, or None if the file counts samples of the record.
            `at_rate` converts ticks to samples.
    """

    samples: Int[np.ndarray, " n"]
    codes: Int[np.ndarray, " n"]
    notes: tuple[str, ...]
    resolution: float | None = None

    @property
    def is_beat(self) -> np.ndarray:
        """True where the annotation marks a heart beat, shape (n,)."""
        # These are the codes for which isqrs() of WFDB is true.
        return np.isin(self.codes, [*range(1, 14), 25, 30, 31, 34, 35, 38, 41])

    def at_rate(self, sample_rate: float) -> "Annotations":
        """Convert ticks of the clock of the file to samples of the record.

        Args:
            sample_rate: sampling rate of the record in Hz (`Record.sample_rate`).

        Returns:
            The annotations at the nearest samples; the same annotations if they already count samples.

        Raises:
            ArgumentError: the rate is not positive, or so high that sample numbers overflow.
        """
        rate = _checks.constant("at_rate", "sample_rate", sample_rate, _checks.positive, "it must be positive (in Hz)")
        if self.resolution is None:
            return self
        with np.errstate(over="ignore"):
            samples = np.floor(self.samples * rate / self.resolution + 0.5)
        if not (samples < 1 << 53).all():
            raise ArgumentError(
                f"at_rate: sample numbers at sample_rate={rate:g} Hz overflow (the clock of the file has "
                f"{self.resolution:g} Hz). Pass the sampling rate of the record."
            )
        return dataclasses.replace(self, samples=samples.astype(np.int64), resolution=None)

    def rhythms(self, length: int) -> list[tuple[str, int, int]]:
        """List the intervals of one rhythm as (name, first sample, sample after the last).

        Args:
            length: number of samples in the record; the last interval ends there.

        Returns:
            Intervals in order of time. Names have no opening bracket (``"N"``, ``"AFIB"``).

        Raises:
            ArgumentError: `length` is not an integer of at least 1, a rhythm begins after it, or the annotations
                count ticks instead of samples.
        """
        length = _checks.integer("rhythms", "length", length)
        if self.resolution is not None:
            raise ArgumentError(
                f"rhythms: the annotations count {self.resolution:g} ticks per second, not samples. Convert them "
                "first: annotations.at_rate(record.sample_rate)."
            )
        changes = [
            (int(sample), note.strip().removeprefix("("))
            for sample, code, note in zip(self.samples, self.codes, self.notes, strict=True)
            if code == _RHYTHM and note.startswith("(")
        ]
        changes.sort(key=lambda change: change[0])
        late = max((start for start, _ in changes), default=0)
        if late > length:
            raise ArgumentError(
                f"rhythms: a rhythm begins at sample {late}, but length={length}. Are these the annotations of that "
                "record?"
            )
        ends = [start for start, _ in changes[1:]] + [length]
        return [(name, start, end) for (start, name), end in zip(changes, ends, strict=True) if end > start]


def read_wfdb(path: str | pathlib.Path) -> Record:
    """Read a WFDB record: its header and its signals.

    All signals must be in one file of format 212 (as in the MIT-BIH databases) or 16, with the same
    sampling rate. The samples are compared with the checksums in the header. A signal without a gain in the header
    has 200 units per mV, as in WFDB.

    Args:
        path: the record without its extension, or its ``.hea`` file.

    Returns:
        The record, with signals in physical units.

    Raises:
        FileNotFoundError: the header or the signal file is missing.
        ArgumentTypeError: `path` is not a path.
        DataError: the header has an unsupported format, or the samples contradict it.

    Example:
        ```python
        record = read_wfdb("mitdb/100")
        record.signals.shape, record.sample_rate  # ((650000, 2), 360.0)
        ```
    """
    path = as_path("read_wfdb", "path", path)
    header = path if path.suffix == ".hea" else path.parent / f"{path.name}.hea"
    lines = [line.strip() for line in re.split(r"\r\n?|\n", _text(read_bytes(header, _BESIDE, _HEADER)))]
    comments = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    if not fields or len(fields[0]) < 3:
        raise DataError(f"{header}: not a WFDB header (its first line must name record, signals and rate).")
    name = fields[0][0]
    if "/" in name:
        raise DataError(f"{header}: multi-segment records are not supported. Read the segments one by one.")
    signals = _integer(fields[0][1], f"{header}: the number of signals")
    sample_rate = _finite(re.split(r"[/(]", fields[0][2])[0], f"{header}: sampling rate")
    if sample_rate <= 0:
        raise DataError(f"{header}: the sampling rate is {sample_rate:g} Hz. Write the rate of the recording there.")
    announced = _integer((fields[0][3:] or ["0"])[0], f"{header}: the number of samples")
    if not signals:
        raise DataError(f"{header}: the record has no signals. `read_wfdb_annotations` reads its annotations.")
    described = [_Signal.of(line, f"{header}: signal {i}") for i, line in enumerate(fields[1:])]
    if len(described) != signals:
        raise DataError(f"{header}: the first line announces {signals} signals, but {len(described)} are described.")
    files, formats = {signal.file for signal in described}, {signal.format for signal in described}
    if len(files) != 1 or len(formats) != 1 or not formats <= {"212", "16"}:
        raise DataError(
            f"{header}: the signals are in files {sorted(files)[:9]} of formats {sorted(formats)[:9]}. Only records "
            "with all signals in one file of format 212 or 16 are supported. Convert the record with xform of WFDB."
        )
    data_file = _beside(header, files.pop())
    raw = np.frombuffer(read_bytes(data_file, _BESIDE), dtype=np.uint8)
    digital = _decode_212(raw) if formats == {"212"} else raw[: raw.size // 2 * 2].view("<i2").astype(np.int32)
    length = announced or digital.size // signals  # 0 in a header means unknown
    spare = digital.size - length * signals
    # Format 212 may have one spare sample in its last pair. More spare samples are accepted only with checksums.
    summed = all(signal.checksum is not None for signal in described)
    excess = spare > 1 if formats == {"212"} else raw.size > 2 * length * signals
    if spare < 0 or not length or (excess and not summed):
        raise DataError(
            f"{data_file}: {digital.size / signals:g} samples, but the header announces {length}. The file is "
            "truncated, or belongs to another header. Download both again."
        )
    digital = digital[: length * signals].reshape(length, signals)

    physical = np.empty(digital.shape, dtype=np.float64)
    for i, signal in enumerate(described):
        column = digital[:, i]
        if signal.checksum is not None and (int(column.sum(dtype=np.int64)) - signal.checksum) % 65536:
            raise DataError(f"{data_file}: signal {i} contradicts the checksum in the header. Download it again.")
        with np.errstate(over="ignore"):
            physical[:, i] = (column - signal.baseline) / signal.gain
        if not np.isfinite(physical[:, i]).all():
            raise DataError(
                f"{header}: values of signal {i} overflow with gain {signal.gain:g} and baseline {signal.baseline:g}. "
                "Correct the header, or download it again."
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
        The annotations in the order of the file, without those about the file itself (its time resolution, its own
        types of annotation).

    Raises:
        FileNotFoundError: the file is missing.
        ArgumentTypeError: `path` is not a path.
        DataError: the file ends within an annotation or without its end mark, continues after it, has a time before
            sample 0, or has undefined codes.

    Example:
        ```python
        read_wfdb_annotations("mitdb/100").rhythms(650_000)  # [("N", 18, 650000)]
        ```
    """
    path = as_path("read_wfdb_annotations", "path", path)
    # The name of a record may contain a dot.
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
                # A long interval in the byte order of a PDP-11: high half first, each half little-endian.
                high, low = struct.unpack_from("<hH", data, at)
                time += (high << 16) + low
                at += 4
            elif code == _AUX:
                note = data[at : at + value]
                if len(note) < value:
                    raise struct.error
                at += value + value % 2
                if not notes:
                    raise DataError(f"{file}: a note before the first annotation; damaged, or not a WFDB file.")
                notes[-1] = _text(note).rstrip("\0")
            elif code not in (_NUM, _SUB, _CHN):
                time += value
                if time < 0:
                    raise DataError(f"{file}: an annotation at sample {time}, before 0. Download the file again.")
                if code > _LAST:
                    raise DataError(f"{file}: annotation code {code} is undefined. Download the file again.")
                samples.append(time)
                codes.append(code)
                notes.append("")
    except struct.error:
        raise DataError(f"{file}: ends without the end mark; truncated, or not a WFDB file.") from None
    if data[at:].strip(b"\0"):
        raise DataError(f"{file}: continues after its end mark; damaged, or not a WFDB file.")
    own, resolution = _own_header(file, samples, codes, notes)
    return Annotations(
        np.array(samples[own:], dtype=np.int64), np.array(codes[own:], dtype=np.int64), tuple(notes[own:]), resolution
    )


def _own_header(
    file: pathlib.Path, samples: array.array, codes: array.array, notes: list[str]
) -> tuple[int, float | None]:
    """Return the number of leading annotations that are about the file itself, and the resolution they state."""
    resolution, defining, count = None, False, 0
    for time, code, note in zip(samples, codes, notes, strict=True):
        if time != 0 or code != _NOTE or not (defining or note.startswith("## ")):
            break
        count += 1
        if note.startswith(_RESOLUTION):
            resolution = _finite(note.removeprefix(_RESOLUTION).strip(), f"{file}: time resolution")
            if resolution <= 0:
                raise DataError(f"{file}: time resolution {resolution:g} Hz is not positive. Download the file again.")
        defining = note != "## end of definitions" and (defining or note == "## annotation type definitions")
    return count, resolution


def _decode_212(raw: np.ndarray) -> np.ndarray:
    """Unpack pairs of 12-bit two's complement numbers from groups of three bytes."""
    triples = raw[: raw.size // 3 * 3].reshape(-1, 3).astype(np.int32)
    pairs = np.empty((triples.shape[0], 2), dtype=np.int32)
    pairs[:, 0] = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    pairs[:, 1] = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    values = np.where(pairs >= 2048, pairs - 4096, pairs).reshape(-1)
    if raw.size % 3 == 2:  # an odd number of samples: the last one is in two bytes
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
            raise DataError(f"{where}: {' '.join(line)[:60]!r} does not name a file and a format.")
        text, _, unit = (line[2] if len(line) > 2 else "200").partition("/")
        number, _, baseline = text.partition("(")
        zero = line[4] if len(line) > 4 else "0"
        return _Signal(
            line[0],
            line[1],
            _finite(number, f"{where}: gain") or 200.0,  # 0 in a header means unknown
            _finite(baseline.removesuffix(")") or zero, f"{where}: baseline"),
            unit or "mV",
            _integer(line[6], f"{where}: checksum", signed=True) if len(line) > 6 else None,
            " ".join(line[8:]),
        )


def _beside(header: pathlib.Path, name: str) -> pathlib.Path:
    """Return a file that a header names; raise unless it is in the folder of the header."""
    file = header.parent / name
    if pathlib.PurePath(name).name != name or name == ".." or "\\" in name or ":" in name or "\0" in name:
        raise DataError(f"{header}: the signals are in {name[:60]!r}, but a header must name a file of its own folder.")
    if os.path.realpath(file.parent) != os.path.dirname(os.path.realpath(file)):
        raise DataError(f"{file}: a link out of the folder of the header. Put the file itself there.")
    return file


def _finite(text: str, what: str) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise DataError(f"{what} {text[:30]!r} is not a finite number. Correct the header, or download it again.")
    return number


def _integer(text: str, what: str, signed: bool = False) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}" if signed else r"[0-9]{1,15}", text):
        kind = "an integer" if signed else "an integer of 0 or more"
        raise DataError(f"{what} is {text[:30]!r}, which is not {kind}. Correct the header, or download it again.")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
