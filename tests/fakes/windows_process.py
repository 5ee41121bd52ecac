"""A Python process with the limits of Windows: `python -X warn_default_encoding -m tests.fakes.windows_process ARGS...`.

It runs the command line with ARGS. Modules, functions, flags and signals that Windows lacks are missing, also inside the
event loop; an open file is neither removed nor renamed, no folder is opened, each descriptor is opened as binary, and
names that Windows refuses are refused. Libraries are imported before, as their builds for Windows would be others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import io
import os
import re
import runpy
import shutil
import signal
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MISSING_MODULES: Final = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "uvloop")
MISSING_NAMES: Final = (
    *(
        "fchmod",
        "fork",
        "forkpty",
        "getegid",
        "geteuid",
        "getgid",
        "getuid",
        "killpg",
        "pread",
        "pwrite",
        "register_at_fork",
    ),
    *("setsid", "uname", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"),
)
MISSING_SIGNALS: Final = ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_sigmask")
LIBRARIES: Final = (
    "aiohttp",
    "anyio",
    "attrs",
    "av",
    "backoff",
    "cattrs",
    "cyclopts",
    "PIL.Image",
    "platformdirs",
    "platformdirs.unix",
    "rich.console",
    "rich.progress",
)
#: The flag that Windows needs, and this system does not have.
O_BINARY: Final = 1 << 30
MAX_PATH: Final = 260
FORBIDDEN: Final = re.compile(
    r'[<>:"|?*\x00-\x1f\\]|[. ]$|^(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?$', re.IGNORECASE
)
ORIGINAL_OPEN: Final = os.open


def check_name(path: Any) -> None:
    """Refuse a path that Windows refuses."""
    if isinstance(path, int):
        return
    whole = str(Path.cwd() / os.fsdecode(path))
    if any(FORBIDDEN.search(part) for part in Path(whole).parts[1:]) or len(whole) >= MAX_PATH:
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", whole)


def check_case(path: Any) -> None:
    """Refuse a new file beside one whose name differs in case alone."""
    wanted = Path(path)
    if any(found.name.casefold() == wanted.name.casefold() for found in wanted.parent.iterdir()):
        raise FileExistsError(errno.EEXIST, "File exists", str(path))


def is_open(path: Any) -> bool:
    """Return whether this process has the file open."""
    wanted = os.lstat(path)
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(wanted, os.fstat(int(number.name))):
                return True
    return False


def check_not_open(path: Any) -> None:
    """Refuse to remove or rename a file that this process has open."""
    if os.path.lexists(path) and is_open(path):
        raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", str(path))


def open_as_windows(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    check_name(path)
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
    if flags & os.O_EXCL:
        check_case(path)
    if is_package(sys._getframe(1)):
        assert flags & O_BINARY, f"{path} is opened as text"
    return ORIGINAL_OPEN(path, flags & ~O_BINARY, mode, dir_fd=dir_fd)


def guarded(original: Callable[..., Any], check: Callable[[Any], None], arguments: int) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        for path in args[:arguments]:
            check_name(path)
            check(path)
        return original(*args, **options)

    return call


def refused_to_the_package(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is not implemented for `pika_async`; asyncio's own loop here needs it."""

    def call(*args: Any, **options: Any) -> Any:
        if is_package(sys._getframe(1)):
            raise NotImplementedError
        return original(*args, **options)

    return call


def is_package(frame: types.FrameType) -> bool:
    return "/pika_async/" in frame.f_code.co_filename


def become_windows() -> None:
    """Take away what Windows lacks. Cannot be undone in this process."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in MISSING_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, MISSING_NAMES), (signal, MISSING_SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    os.O_BINARY = O_BINARY  # type: ignore[attr-defined]
    os.open = open_as_windows
    for name, arguments in {"unlink": 1, "remove": 1, "rename": 2, "replace": 2}.items():
        setattr(os, name, guarded(getattr(os, name), check_not_open, arguments))
    for name, arguments in {"mkdir": 1, "link": 2}.items():
        setattr(os, name, guarded(getattr(os, name), lambda _: None, arguments))
    io.open = guarded(io.open, lambda _: None, 1)
    loop: Any = asyncio.SelectorEventLoop
    for name in (
        "add_signal_handler",
        "remove_signal_handler",
        "add_reader",
        "remove_reader",
        "add_writer",
        "remove_writer",
    ):
        setattr(loop, name, refused_to_the_package(getattr(loop, name)))
    warnings.filterwarnings("error", category=EncodingWarning, module=r"pika_async(\.|$)")


if __name__ == "__main__":
    become_windows()
    if sys.argv[1:2] == ["-c"]:
        exec(compile(sys.argv[2], "script", "exec"), {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
    else:
        runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
