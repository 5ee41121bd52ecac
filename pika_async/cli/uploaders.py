"""`--uploader MODULE:FUNCTION`: the user's own function that uploads local files. Imports it, and does not call it."""

from __future__ import annotations

import importlib
import os
import sys

from pika_async.cli.exits import UsageError
from pika_async.errors import strip_control
from pika_async.models.media import Uploader

__all__ = ["load_uploader"]


def load_uploader(text: str) -> Uploader:
    """Import the function that `MODULE:FUNCTION` names, also from the current folder.

    It is given on each command and never saved: a folder that was received must not run code.

    :raises UsageError: if there is no such function, or its module cannot be imported.
    """
    shown = strip_control(text)
    module_name, separator, name = text.partition(":")
    if not (separator and module_name and name) or module_name.endswith(".py"):
        raise UsageError(f"--uploader: {shown} must be MODULE:FUNCTION, such as myhost:upload for upload in myhost.py")
    folder = os.getcwd()  # noqa: PTH109 - an entry of sys.path is text
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        raise UsageError(f"--uploader: {shown} cannot be imported: {strip_control(repr(error))}") from error
    function: Uploader | None = getattr(found, name, None)
    if not callable(function):
        raise UsageError(f"--uploader: {shown} must name an async function of {module_name}; nothing was sent")
    return function
