"""Where published files are kept, and how they get there."""

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

from ._checks import as_path
from ._reading import open_file, read_bytes

_T = TypeVar("_T")

_SUMS = "SHA256SUMS.txt"
_MEMBERS = 10_000  # of an archive
_RATIO, _FREE, _LARGEST = 100, 1 << 28, 1 << 36  # unpacked: 100 bytes a byte of the archive, or 256 MiB; at most 64 GiB
_TIMEOUT = 30  # seconds without an answer or a byte until a download is given up
_logger = logging.getLogger("echograd.workbench.data")


def data_folder(root: str | os.PathLike | None = None) -> pathlib.Path:
    """Give the folder that published data sets are kept in.

    Args:
        root: the folder, if it is neither the one that the environment variable ``ECHOGRAD_DATA`` names nor
            the user's cache folder.

    Returns:
        `root`, or ``$ECHOGRAD_DATA``, or ``echograd`` in the system's cache folder for this user. It need
        not exist yet.
    """
    for name, value in (("root", root), ("ECHOGRAD_DATA", os.environ.get("ECHOGRAD_DATA") or None)):
        if value is not None:
            try:
                return as_path(value, name).expanduser()
            except RuntimeError as error:
                raise ArgumentError(f"{name} is {value!r}: {error} Write the folder's whole path.") from None
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
    """Download an archive, read what it holds, and only then keep it.

    The download and the files in it stay in a scratch folder until they have been read without an error, so
    that what is in `folder` is always whole. Upstream publishes no checksums for these archives: what is
    recorded (in ``SHA256SUMS.txt`` beside the files) is what the first download was, and guards against later
    changes, not against a wrong first download.

    Args:
        url: address of a zip archive.
        folder: where the files go.
        alternatives: mappings of the file names wanted from the archive to where they go in `folder`; the
            first mapping of which the archive has every file is taken.
        read: makes the data set from a folder that is filled like `folder`.
        by_hand: what to do without a download, for error messages.

    Returns:
        What `read` returns.

    Raises:
        ModuleNotFoundError: pooch is not installed.
        ConnectionError: the archive cannot be fetched, or is damaged, or does not hold the files.
    """
    try:
        pooch: ModuleType = importlib.import_module("pooch")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"downloads need pooch: pip install 'echograd[workbench]'. Without it: {by_hand}", name="pooch"
        ) from None
    make_folder(folder, "Name a data folder that can be written (ECHOGRAD_DATA).")
    _logger.info("downloading %s", url)
    # In the same file system as its destination, so that moving is renaming.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        scratch, archive = pathlib.Path(name) / "files", pathlib.Path(name) / "archive.zip"
        try:
            pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(archive), None)
            names = _extract(archive, scratch, alternatives)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"{url} could not be fetched whole ({reason}). Instead: {by_hand}") from error
        result = read(scratch)
        lines = [f"{_digest(scratch / name)}  {name}\n" for name in names]
        (scratch / _SUMS).write_text("".join(lines), encoding="utf-8")
        for name in [*names, _SUMS]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / name, folder / name)
    return result


def verify(folder: pathlib.Path, names: Sequence[str]) -> None:
    """Check the files of a set against the checksums recorded when they were downloaded, if any were recorded.

    Args:
        folder: where the files are.
        names: the set's files. If there are checksums, there must be one of each.

    Raises:
        ValueError: a file has changed or has no checksum, or the checksums cannot be read.
    """
    sums = folder / _SUMS
    if not os.path.lexists(sums):
        return
    text = read_bytes(sums, most=1 << 22).decode("utf-8", errors="replace")
    recorded = {found[2]: found[1].lower() for found in re.finditer(r"^([0-9a-fA-F]{64}) [ *]?(.+?)\r?$", text, re.M)}
    for name in names:
        file = folder / name
        if name not in recorded:
            raise ArgumentError(
                f"{sums} has no SHA-256 of {name}, so that nothing vouches for {file}. Delete {folder} and load the "
                f"set again; or delete {sums.name} if you put the files there yourself."
            )
        if _digest(file) != recorded[name]:
            raise ArgumentError(
                f"{file} is not what was downloaded (its SHA-256 is not the one in {sums}). Delete {folder} "
                f"and load the set again; or delete {sums.name} if the change was yours."
            )


def _extract(archive: pathlib.Path, scratch: pathlib.Path, alternatives: Sequence[Mapping[str, str]]) -> list[str]:
    """Take the wanted files out of an archive, and give their new names."""
    with zipfile.ZipFile(archive) as opened:
        members: dict[str, list[zipfile.ZipInfo]] = {}
        for info in opened.infolist():
            members.setdefault(pathlib.PurePosixPath(info.filename).name, []).append(info)
        if len(opened.infolist()) > _MEMBERS:
            raise ArgumentError(
                f"the archive has {len(opened.infolist())} members; at most {_MEMBERS} are looked through"
            )
        for wanted in alternatives:
            if wanted.keys() <= members.keys():
                chosen = {target: _only(members[name]) for name, target in wanted.items()}
                _refuse_bomb(archive, chosen.values())
                for target, info in chosen.items():
                    # Only names that we chose are written, whatever paths the archive holds.
                    _copy(opened, info, scratch / target)
                return list(wanted.values())
        inner = [infos for name, infos in members.items() if name.endswith(".zip")]
        if len(inner) == 1 and archive.name != "inner.zip":  # UCI wraps the authors' archive in one of its own
            _refuse_bomb(archive, [_only(inner[0])])
            _copy(opened, _only(inner[0]), archive.with_name("inner.zip"))
    if len(inner) == 1 and archive.name != "inner.zip":
        archive.unlink()
        return _extract(archive.with_name("inner.zip"), scratch, alternatives)
    endings = collections.Counter(pathlib.PurePosixPath(name).suffix for name in members)
    raise ArgumentError(f"the archive lacks {', '.join(alternatives[0])}; it holds {dict(endings.most_common(8))}")


def _only(infos: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """Return the member of a name, which may be there several times if it is the same each time."""
    if len({(info.CRC, info.file_size) for info in infos}) > 1:
        raise ArgumentError(f"the archive holds different files {pathlib.PurePosixPath(infos[0].filename).name}")
    return infos[0]


def _refuse_bomb(archive: pathlib.Path, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse members that say they are too large. Of each, zipfile reads no more than it says."""
    size, packed = sum(info.file_size for info in infos), archive.stat().st_size
    most = min(max(_FREE, _RATIO * packed), _LARGEST)
    if size > most:
        raise ArgumentError(
            f"its files would take {size} bytes; from an archive of {packed} bytes, at most {most} are taken"
        )


def _copy(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(info) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _digest(file: pathlib.Path) -> str:
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
