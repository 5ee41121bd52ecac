"""`estimate`: the preview of `batch`, with the same options."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final

import attrs

from pika_async.cli.folder_commands import batch
from pika_async.cli.preview import SpendOptions

__all__ = ["estimate"]

#: The help text before the parameters, which are those of `batch`.
_HELP: Final = """Print what `batch` would be charged and how long it would take; send nothing.

Example: `pika-async estimate prompts.csv --provider cometapi --out clips`

The same as `batch --dry-run`. A folder that exists is only read, also while a batch runs there: its jobs are known and
not paid for again, and the durations and points of those that have settled teach the estimate.

Exit codes: 0 the preview was printed, 2 usage or input error.
"""


@functools.wraps(batch, assigned=("__module__", "__annotations__"))
def estimate(*args: Any, spend: SpendOptions = SpendOptions(), **options: Any) -> int:  # noqa: B008 - frozen; below
    return batch(*args, spend=attrs.evolve(spend, dry_run=True), **options)


_PARAMETERS: Final = inspect.cleandoc(batch.__doc__ or "").partition(":param ")
estimate.__doc__ = f"{_HELP}\n{''.join(_PARAMETERS[1:])}"
