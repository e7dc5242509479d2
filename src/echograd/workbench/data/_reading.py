"""Reading from files: only regular ones, and never more than the file can justify."""

import gzip
import io
import os
import pathlib
import stat
import zlib
from collections.abc import Iterator

from ._errors import DataError

LINE = 1 << 25  # characters; the longest lines of the published archives have a tenth of it
_GZIP_MAGIC = b"\x1f\x8b"
_RATIO, _FREE = 100, 1 << 28  # decompressed bytes: up to 100 a byte of the file, or 256 MiB in all


def open_file(path: pathlib.Path, remedy: str = "") -> io.BufferedReader:
    """Open a file to read bytes from.

    Args:
        path: the file.
        remedy: a sentence of what else must be there, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is a folder or a device, or cannot be read.
    """
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{_short(path)} is missing. {remedy}".rstrip()) from None
    except OSError as error:  # among others, a name longer than the system allows
        raise OSError(error.errno, f"{_short(path)} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path} is a folder. Pass a file in it.")
    if not stat.S_ISREG(kind):
        raise OSError(f"{path} is a device or a pipe. Only regular files are read.")
    try:
        return path.open("rb")
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read: {error.strerror}.") from None


def read_bytes(path: pathlib.Path, remedy: str = "", most: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        remedy: a sentence of what else must be there, for the error.
        most: how many bytes it may have.

    Raises:
        OSError: see `open_file`.
        ValueError: it is larger.
    """
    with open_file(path, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise DataError(f"{path} has {size} bytes; a file of its kind has at most {most}. Is it another file?")
        return file.read(size)


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1 on.

    Bytes that are not UTF-8 become U+FFFD: some published files have accents in another encoding in their comments.

    Raises:
        OSError: see `open_file`.
        ValueError: a line is too long to be a case.
    """
    with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            if len(line) > LINE:
                raise DataError(
                    f"{path}, line {number}: longer than {LINE} characters. Is this a text file? If it is, cut its "
                    "series into shorter ones, or build a `Split` from arrays."
                )
            yield number, line


class Unpacked:
    """The bytes of a file, decompressed as they are asked for if the file is compressed with gzip.

    Whether it is compressed is told by what is in it, not by its name.

    Args:
        path: the file.

    Raises:
        OSError: see `open_file`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = open_file(path)
        size = os.fstat(self._file.fileno()).st_size
        self.packed = self._file.read(2) == _GZIP_MAGIC
        self._file.seek(0)
        self._stream: gzip.GzipFile | io.BufferedReader = (
            gzip.GzipFile(fileobj=self._file) if self.packed else self._file
        )
        self.most = max(_FREE, _RATIO * size) if self.packed else size

    def __enter__(self) -> "Unpacked":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._file.close()

    def read(self, size: int) -> bytes:
        """Read so many bytes, or as many as there are.

        Raises:
            ValueError: the compressed data is damaged or cut short.
        """
        parts = []
        try:
            while size and (part := self._stream.read(min(size, 1 << 20))):
                parts.append(part)
                size -= len(part)
        except (OSError, EOFError, zlib.error) as error:
            if not self.packed:
                raise
            raise DataError(f"{self._path} is no whole gzip file ({error}). Copy or download it again.") from error
        return b"".join(parts)


def _short(path: pathlib.Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:120]}...{text[-120:]} ({len(text)} characters)"
