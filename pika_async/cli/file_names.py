"""Names of video files, tried on the file system that will hold them. Leaves no file behind."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from pika_async._journal.system_calls import open_file
from pika_async.cli.exits import UsageError

__all__ = ["TRIED_SUFFIX", "check_file_names", "similar_keys"]

#: Ending of the names that are tried, as long as the longest of a result, and of no result.
TRIED_SUFFIX: Final = ".~try"


def similar_keys(keys: Collection[str]) -> list[list[str]]:
    """Return the groups of keys that differ only in case or in how Unicode composes a letter, in order."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key in dict.fromkeys(keys):
        groups[unicodedata.normalize("NFC", key).casefold()].append(key)
    return [group for group in groups.values() if len(group) > 1]


def check_file_names(folder: Path, keys: Collection[str], option: str = "--out") -> None:
    """Check that `folder` can hold a video for each key: the longest names, and those that are alike side by side.

    A file system may limit the length of a path, as on Windows, or not distinguish case, as on Windows and macOS. Under
    `LC_ALL=C` without UTF-8 mode, Python cannot name files outside ASCII.

    :param option: the option that names the folder, for the errors; default --out.
    :raises UsageError: if a name cannot be made, or two keys have one file there. Nothing was sent.
    :raises OSError: if the folder itself cannot be made.
    """
    if not keys:
        return
    for key in keys:
        _check_encoding(key, option)
    with _existing(folder):
        for key in {max(keys, key=len), max(keys, key=lambda key: len(key.encode()))}:
            with _file(folder, key, option):
                pass
        for first, *others in similar_keys(keys):
            with _file(folder, first, option) as is_new:
                for other in others if is_new else ():
                    with _file(folder, other, option) as is_other:
                        if not is_other:
                            reason = f"{folder} cannot distinguish the files of {first} and {other}"
                            raise UsageError(f"{option}: {reason}; change one key; nothing was sent")


def _check_encoding(key: str, option: str) -> None:
    try:
        os.fsencode(key)
    except UnicodeEncodeError:
        reason = (
            f"a file for the key {key!r} cannot be named in the encoding of this system, {sys.getfilesystemencoding()}"
        )
        raise UsageError(f"{option}: {reason}; set PYTHONUTF8=1, or give another key; nothing was sent") from None


@contextlib.contextmanager
def _existing(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and then remove it again."""
    is_missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _file(folder: Path, key: str, option: str) -> Iterator[bool]:
    """Make an empty file for `key`, and remove it again; yield False if there is one of that name already."""
    path = folder / f"{key}{TRIED_SUFFIX}"
    try:
        os.close(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        yield False
        return
    except OSError as error:
        reason = f"{path} ({len(str(path))} characters) cannot be made: {error.strerror}"
        raise UsageError(f"{option}: {reason}; give a shorter key or {option}; nothing was sent") from None
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
