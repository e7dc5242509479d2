"""Reading of files: regular files only, with limits on lines and on decompressed bytes."""

import gzip
import io
import os
import pathlib
import stat
import zlib
from collections.abc import Iterator

from ._errors import DataError

LINE = 1 << 25  # characters in a line: ten times the longest line of the published archives
_GZIP_MAGIC = b"\x1f\x8b"
_RATIO, _FREE = 100, 1 << 28  # limit on decompressed bytes: 100 per byte of the file, or 256 MiB


def open_file(path: pathlib.Path, remedy: str = "") -> io.BufferedReader:
    """Open a regular file to read bytes.

    Args:
        path: the file.
        remedy: a sentence for the message if the file is missing.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is a folder or a device, or cannot be read.
    """
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{_short(path)} is missing. {remedy}".rstrip()) from None
    except OSError as error:  # for example a name longer than the system allows
        raise OSError(error.errno, f"{_short(path)} cannot be read: {error.strerror}.") from None
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(f"{path} is a folder. Pass a file in it.")
    if not stat.S_ISREG(kind):
        raise OSError(f"{path} is a device or a pipe. Pass a regular file.")
    try:
        return path.open("rb")
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be read: {error.strerror}.") from None


def read_bytes(path: pathlib.Path, remedy: str = "", most: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        remedy: a sentence for the message if the file is missing.
        most: the largest number of bytes.

    Raises:
        OSError: see `open_file`.
        DataError: it is larger.
    """
    with open_file(path, remedy) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise DataError(f"{path} has {size} bytes; a file of this kind has at most {most}. Is it another file?")
        return file.read(size)


def lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file with their numbers, from 1.

    Bytes that are not UTF-8 become U+FFFD: comments of some published files have accents in another encoding.

    Raises:
        OSError: see `open_file`.
        DataError: a line is too long for a case.
    """
    with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            if len(line) > LINE:
                raise DataError(
                    f"{path}, line {number}: longer than {LINE} characters. Is this a text file? If so, cut its series "
                    "into shorter ones, or build a `Split` from arrays."
                )
            yield number, line


class Unpacked:
    """The bytes of a file, decompressed on reading if it is compressed with gzip.

    The first bytes of the file tell whether it is compressed, not its name.

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
        """Read `size` bytes, or fewer at the end of the file.

        Raises:
            DataError: the compressed data is damaged or truncated.
        """
        parts = []
        try:
            while size and (part := self._stream.read(min(size, 1 << 20))):
                parts.append(part)
                size -= len(part)
        except (OSError, EOFError, zlib.error) as error:
            if not self.packed:
                raise
            raise DataError(
                f"{self._path} is a damaged or truncated gzip file ({error}). Copy or download it again."
            ) from error
        return b"".join(parts)


def _short(path: pathlib.Path) -> str:
    text = str(path)
    return text if len(text) <= 300 else f"{text[:120]}...{text[-120:]} ({len(text)} characters)"
