"""List of jobs or requests that is kept as bytes. Reads no file and no database.

A full collection of garbage traverses every container object of the process in one piece, in the thread that began it.
With 100,000 jobs and their requests that takes longer than an event loop may be held; bytes are not traversed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, overload

from pika_async.errors import InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job
from pika_async.models import GenerationRequest

__all__ = ["PackedList", "is_plain"]

T = TypeVar("T")

#: Types whose values are copied into a record...
COPIED_TYPES: Final = frozenset({str, int, float, bool, type(None), tuple, list, dict, datetime})
#: ... and the modules of all others that are: what a job is made of. Errors are copied by a `functools.partial`.
COPIED_MODULES: Final = ("pika_async.", "pathlib", "datetime", "functools")
#: Bytes of a value from which it is referred to: an image that many requests have in common.
MIN_SHARED_BYTES: Final = 256


class PackedList(Sequence[T]):
    """Sequence of jobs or requests, each decoded when it is accessed. Two accesses return equal objects, not the same.

    Values that are large, or that many records have in common, or of types of others are referred to, not copied.

    :param values: the first items; default none.
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._records: list[bytes] = []
        self._shared = _SharedValues()
        for value in values:
            self.append(value)

    def append(self, value: T) -> None:
        """Add `value` at the end, as it is now."""
        try:
            record = pickle.dumps(value, pickle.HIGHEST_PROTOCOL) if is_plain(value) else self._pack(value)
        except Exception:  # the metadata of a request may hold anything
            record = self._pack(value, refer=True)
        self._records.append(record)

    def _pack(self, value: T, *, refer: bool = False) -> bytes:
        """Return the record of `value`.

        :param refer: whether to refer to `value` itself instead of some of its parts (default: no).
        """
        file = io.BytesIO()
        _Packer(file, self._shared, refer=refer).dump(value)
        return file.getvalue()

    def select(self, positions: Iterable[int]) -> PackedList[T]:
        """Return a list of the items at `positions`, in that order."""
        selected = PackedList[T]()
        selected._records = [self._records[position] for position in positions]
        selected._shared = self._shared
        return selected

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        value: T = _Unpacker(io.BytesIO(self._records[index]), self._shared).load()
        return value

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | PackedList):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def is_plain(value: object) -> bool:
    """Whether no part of `value` is to be referred to, by the few parts that may be: the usual case, twice as fast."""
    request, error = (value.request, value.error) if isinstance(value, Job) else (value, None)
    if isinstance(request, GenerationRequest):
        has_bytes = isinstance(request.image, bytes) or isinstance(request.last_image, bytes)
        if has_bytes or request.ingredients:
            return False
    return error is None or (_is_own(type(error)) and not isinstance(error, SubmissionsStopped | InvalidRequest))


def _is_own(kind: type) -> bool:
    return kind.__module__.startswith(COPIED_MODULES)


class _SharedValues:
    """Values to which records refer, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._positions: dict[int, int] = {}

    def position(self, value: Any) -> int:
        """Return the position of `value` in `values`, to which it is added if it is not there."""
        position = self._positions.setdefault(id(value), len(self.values))
        if position == len(self.values):
            self.values.append(value)
        return position


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, shared: _SharedValues, *, refer: bool) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._shared = shared
        self._refer = refer

    def persistent_id(self, value: Any) -> int | None:
        """Return the position among the shared values, or None for a value that is copied into the record."""
        kind = value if isinstance(value, type) else type(value)
        is_copied = kind in COPIED_TYPES or (_is_own(kind) and not isinstance(value, SubmissionsStopped))
        is_small = kind is bytes and len(value) < MIN_SHARED_BYTES
        return None if not self._refer and (is_copied or is_small) else self._shared.position(value)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: _SharedValues) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, position: int) -> Any:
        """Return a shared value."""
        return self._shared.values[position]
