"""Keys and task ids as people type and paste them. Reads no journal and sends nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from pika_async.cli.exits import UsageError
from pika_async.errors import shorten, strip_control

__all__ = ["find_keys", "parse_task_ids", "unquoted"]

#: Quotes and separators around a key that was pasted, those of word processors included.
_AROUND: Final = " \t\r\n,;\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
#: A task id in a line that the command line printed.
_NAMED_TASK: Final = re.compile(r"\btask[ \t]+(\S+)")
#: Characters of a text that are repeated in an error.
MAX_SHOWN_KEY: Final = 120
#: Keys that an ambiguous beginning fits and that are named.
MAX_NAMED_MATCHES: Final = 5


def unquoted(text: str) -> str:
    """Return `text` without the white space, quotes and separators around it."""
    return text.strip(_AROUND)


def find_keys(given: Sequence[str], keys: Collection[str], *, command: str, others: Collection[str] = ()) -> list[str]:
    """Return the keys that are meant by `given`, each once: a whole key, or a beginning that only one key has.

    :param keys: the keys to choose from.
    :param command: the name of the command, for error texts.
    :param others: keys that the command cannot use; a text that is or begins one of them only is returned as its key.
    :raises UsageError: if a text fits no key, or several.
    """
    found: dict[str, None] = {}
    for text in given:
        name = unquoted(text)
        shown_name = strip_control(name)[:MAX_SHOWN_KEY] or "''"
        matches = _matches(name, keys) or _matches(name, others)
        if len(matches) > 1:
            shown = ", ".join(matches[:MAX_NAMED_MATCHES]) + (", ..." if len(matches) > MAX_NAMED_MATCHES else "")
            reason = f"{shown_name} fits {len(matches)} keys ({shown}); give more of the key"
            raise UsageError(f"{command}: {reason}; nothing was sent")
        if not matches:
            reason = f"{shown_name} is not the key of a job in this folder, nor the beginning of one"
            raise UsageError(f"{command}: {reason}; nothing was sent")
        found[matches[0]] = None
    return list(found)


def _matches(name: str, keys: Iterable[str]) -> list[str]:
    if not name:
        return []
    matches = [key for key in keys if key.startswith(name)]
    return [name] if name in matches else matches


def parse_task_ids(arguments: Sequence[str]) -> list[str]:
    """Return the task ids among the arguments of `fetch`, each once.

    An argument is an id, in quotes or not, or several with white space between them. The words of one line that
    `pika-async` printed, such as "accepted by cometapi: task ID", are taken as the id in it.

    :raises UsageError: if there is no id, or a line names more than one task.
    """
    text = " ".join(arguments)
    named = dict.fromkeys(unquoted(match.rstrip(".:)")) for match in _NAMED_TASK.findall(text))
    if len(named) == 1:
        return list(named)
    if len(named) > 1:
        shown = ", ".join(map(shorten, named))
        raise UsageError(f"fetch: a line must name one task, but this one names {shown}; give their ids alone")
    ids = dict.fromkeys(unquoted(word) for argument in arguments for word in argument.split())
    ids.pop("", None)
    if not ids:
        raise UsageError("fetch: needs the id of a task; nothing was sent")
    return list(ids)
