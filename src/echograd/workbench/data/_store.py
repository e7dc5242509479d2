"""The folder of published data sets, and downloads into it."""

import collections
import hashlib
import importlib
import logging
import lzma
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TypeVar

from echograd import ArgumentError
from echograd._internal._files import make_folder

from .._paths import as_path
from ._errors import DataError
from ._reading import open_file, read_bytes

_T = TypeVar("_T")

_SUMS = "SHA256SUMS.txt"
_MEMBERS = 10_000  # largest number of members of an archive
_RATIO, _FREE, _LARGEST = (
    100,
    1 << 28,
    1 << 36,
)  # unpacked bytes: 100 per byte of the archive or 256 MiB, at most 64 GiB
_TIMEOUT = 30  # a download fails after so many seconds without a byte
_logger = logging.getLogger("echograd.workbench.data")


def data_folder(root: str | os.PathLike | None = None) -> pathlib.Path:
    """Return the folder of published data sets.

    Args:
        root: a folder that overrides the environment variable ``ECHOGRAD_DATA`` and the default.

    Returns:
        `root`, or ``$ECHOGRAD_DATA``, or ``echograd`` in the cache folder of this user. It may not exist yet.

    Raises:
        ArgumentTypeError: `root` is not a path.
        ArgumentError: the path names no file, or a home folder that does not exist.

    Example:
        ```python
        data_folder() / "FordA"
        ```
    """
    for name, value in (("root", root), ("ECHOGRAD_DATA", os.environ.get("ECHOGRAD_DATA") or None)):
        if value is not None:
            try:
                return as_path("data_folder", name, value).expanduser()
            except RuntimeError as error:  # a home folder that does not exist
                raise ArgumentError(
                    f"data_folder: {name}={value!r} cannot be resolved: {error} Write the whole path of the folder."
                ) from None
    home = pathlib.Path.home()
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "echograd" / "Cache"
    if sys.platform == "darwin":
        return home / "Library/Caches/echograd"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "echograd"


def fetch(
    url: str,
    folder: pathlib.Path,
    alternatives: Sequence[Mapping[str, str]],
    read: Callable[[pathlib.Path], _T],
    by_hand: str,
) -> _T:
    """Download an archive and read its files; keep them if reading succeeds.

    Archive and files stay in a scratch folder until they have been read without an error, so `folder` never holds
    incomplete data. There are no published checksums of these archives. ``SHA256SUMS.txt`` beside the files records
    the first download: it detects later changes, but not a wrong first download.

    Args:
        url: address of a zip archive.
        folder: destination of the files.
        alternatives: mappings from file names in the archive to paths in `folder`. The first mapping whose files are
            all in the archive is used.
        read: reads the data set from a folder with the layout of `folder`.
        by_hand: how to get the files without a download, for messages.

    Returns:
        The result of `read`.

    Raises:
        ModuleNotFoundError: pooch is not installed.
        ConnectionError: the download failed, or the archive is damaged or lacks the files.
    """
    try:
        pooch: ModuleType = importlib.import_module("pooch")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"downloads need pooch: pip install 'echograd[workbench]'. By hand: {by_hand}", name="pooch"
        ) from None
    make_folder(folder, "Choose a data folder that can be written (ECHOGRAD_DATA).")
    _logger.info("downloading %s", url)
    # The scratch folder is in the file system of the destination, so that files can be renamed.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        scratch, archive = pathlib.Path(name) / "files", pathlib.Path(name) / "archive.zip"
        try:
            pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(archive), None)
            names = _extract(archive, scratch, alternatives)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"the download of {url} failed ({reason}). By hand: {by_hand}") from error
        result = read(scratch)
        lines = [f"{_digest(scratch / name)}  {name}\n" for name in names]
        (scratch / _SUMS).write_text("".join(lines), encoding="utf-8")
        for name in [*names, _SUMS]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / name, folder / name)
    return result


def verify(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Check the files of a data set against the checksums of their download, if these were recorded.

    Args:
        folder: the folder of the files.
        names: the files of the data set. If there are checksums, every file needs one.

    Raises:
        DataError: a file has changed or has no checksum.
    """
    sums = folder / _SUMS
    if not os.path.lexists(sums):
        return
    text = read_bytes(sums, most=1 << 22).decode("utf-8", errors="replace")
    recorded = {found[2]: found[1].lower() for found in re.finditer(r"^([0-9a-fA-F]{64}) [ *]?(.+?)\r?$", text, re.M)}
    for name in names:
        file = folder / name
        if name not in recorded:
            raise DataError(
                f"{sums} has no SHA-256 of {name}, so {file} cannot be verified. Delete {folder} and load the data set "
                f"again; or delete {sums.name} if you put the files there yourself."
            )
        if _digest(file) != recorded[name]:
            raise DataError(
                f"{file} has changed since its download (its SHA-256 is not the one in {sums}). Delete {folder} "
                f"and load the data set again; or delete {sums.name} if you made the change."
            )


def _extract(archive: pathlib.Path, scratch: pathlib.Path, alternatives: Sequence[Mapping[str, str]]) -> list[str]:
    """Extract the wanted files of an archive, and return their new names."""
    with zipfile.ZipFile(archive) as opened:
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for info in opened.infolist():
            members.setdefault(pathlib.PurePosixPath(info.filename).name, []).append(info)
        if len(opened.infolist()) > _MEMBERS:
            raise DataError(f"the archive has {len(opened.infolist())} members, more than the limit of {_MEMBERS}")
        for wanted in alternatives:
            if wanted.keys() <= members.keys():
                chosen = {target: _only(members[name]) for name, target in wanted.items()}
                _check_size(archive, chosen.values())
                for target, info in chosen.items():
                    # Paths in the archive are ignored; only our own names are written.
                    _copy(opened, info, scratch / target)
                return list(wanted.values())
        inner = [infos for name, infos in members.items() if name.endswith(".zip")]
        if len(inner) == 1 and archive.name != "inner.zip":  # UCI wraps the archive of the authors in another one
            _check_size(archive, [_only(inner[0])])
            _copy(opened, _only(inner[0]), archive.with_name("inner.zip"))
    if len(inner) == 1 and archive.name != "inner.zip":
        archive.unlink()
        return _extract(archive.with_name("inner.zip"), scratch, alternatives)
    endings = collections.Counter(pathlib.PurePosixPath(name).suffix for name in members)
    raise DataError(f"the archive lacks {', '.join(alternatives[0])}; it holds {dict(endings.most_common(8))}")


def _only(infos: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """Return the first of several members with the same name; raise if their contents differ."""
    if len({(info.CRC, info.file_size) for info in infos}) > 1:
        name = pathlib.PurePosixPath(infos[0].filename).name
        raise DataError(f"the archive holds several different files named {name}")
    return infos[0]


def _check_size(archive: pathlib.Path, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Raise if the declared sizes of members are too large. zipfile reads no more than the declared size."""
    size, packed = sum(info.file_size for info in infos), archive.stat().st_size
    most = min(max(_FREE, _RATIO * packed), _LARGEST)
    if size > most:
        raise DataError(f"its files would take {size} bytes; the limit for an archive of {packed} bytes is {most}")


def _copy(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _digest(file: pathlib.Path) -> str:
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
