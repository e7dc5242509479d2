"""Where published files are kept, and how they get there."""

import collections
import hashlib
import importlib
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TypeVar

from .._files import make_folder

_T = TypeVar("_T")

_SUMS = "SHA256SUMS.txt"
_TIMEOUT = 30  # seconds without an answer or a byte until a download is given up
_logger = logging.getLogger("echograd.data")


def data_folder(root: str | os.PathLike | None = None) -> pathlib.Path:
    """Give the folder that published data sets are kept in.

    Args:
        root: the folder, if it is neither the one that the environment variable ``ECHOGRAD_DATA`` names nor
            the user's cache folder.

    Returns:
        `root`, or ``$ECHOGRAD_DATA``, or ``echograd`` in the system's cache folder for this user. It need
        not exist yet.
    """
    if root is not None:
        return pathlib.Path(root).expanduser()
    if os.environ.get("ECHOGRAD_DATA"):
        return pathlib.Path(os.environ["ECHOGRAD_DATA"]).expanduser()
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
            f"downloads need pooch: pip install 'echograd[data]'. Without it: {by_hand}", name="pooch"
        ) from None
    make_folder(folder, "Name a data folder that can be written (ECHOGRAD_DATA).")
    _logger.info("downloading %s", url)
    # In the same file system as its destination, so that moving is renaming.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as name:
        scratch, archive = pathlib.Path(name) / "files", pathlib.Path(name) / "archive.zip"
        try:
            pooch.HTTPDownloader(timeout=_TIMEOUT)(url, str(archive), None)
            names = _extract(archive, scratch, alternatives)
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConnectionError(f"{url} could not be fetched whole ({reason}). Instead: {by_hand}") from error
        result = read(scratch)
        lines = [f"{_digest(scratch / name)}  {name}\n" for name in names]
        (scratch / _SUMS).write_text("".join(lines), encoding="utf-8")
        for name in [*names, _SUMS]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / name, folder / name)
    return result


def verify(folder: pathlib.Path) -> None:
    """Check the files of a folder against the checksums recorded when they were downloaded, if there are any.

    Raises:
        ValueError: a file has changed, or is gone.
    """
    sums = folder / _SUMS
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file() or _digest(file) != digest:
            raise ValueError(
                f"{file} is not what was downloaded (its SHA-256 is not the one in {sums}). Delete {folder} "
                f"and load the set again; or delete {sums.name} if the change was yours."
            )


def _extract(archive: pathlib.Path, scratch: pathlib.Path, alternatives: Sequence[Mapping[str, str]]) -> list[str]:
    """Take the wanted files out of an archive, and give their new names."""
    with zipfile.ZipFile(archive) as opened:
        members = {pathlib.PurePosixPath(info.filename).name: info for info in opened.infolist()}
        for wanted in alternatives:
            if wanted.keys() <= members.keys():
                for name, target in wanted.items():
                    # Only names that we chose are written, whatever paths the archive holds.
                    (scratch / target).parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(members[name]) as source, (scratch / target).open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                return list(wanted.values())
        inner = [info for name, info in members.items() if name.endswith(".zip")]
        if len(inner) == 1:  # UCI wraps the authors' archive in one of its own
            with opened.open(inner[0]) as source, archive.with_name("inner.zip").open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
    if len(inner) == 1 and archive.name != "inner.zip":
        archive.unlink()
        return _extract(archive.with_name("inner.zip"), scratch, alternatives)
    endings = collections.Counter(pathlib.PurePosixPath(name).suffix for name in members)
    raise ValueError(f"the archive lacks {', '.join(alternatives[0])}; it holds {dict(endings)}")


def _digest(file: pathlib.Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
