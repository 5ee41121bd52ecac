"""Streaming walk over the structure of a file: a generator asks for bytes, and gets them in chunks of any size."""

from __future__ import annotations

from collections.abc import Generator

import attrs

__all__ = ["ByteWalk", "NotMedia", "Skip", "SkipTo", "Steps", "Take", "TruncatedMedia"]


class NotMedia(ValueError):  # noqa: N818 - names what the bytes are
    """The bytes are not a file of a known kind; the text completes a sentence that begins with "the file"."""


class TruncatedMedia(NotMedia):
    """The bytes are the beginning of such a file: it was cut off, or never finished."""


@attrs.frozen
class Take:
    """Request for the next `count` bytes.

    :param may_end: whether the file may end before them.
    """

    count: int
    may_end: bool = False


@attrs.frozen
class Skip:
    """Request to skip `count` bytes."""

    count: int


@attrs.frozen
class SkipTo:
    """Request to skip all bytes up to the next `byte`, and that byte."""

    byte: bytes


#: Yields what it wants next, is sent the bytes of each `Take`, and returns at the end of the file.
Steps = Generator[Take | Skip | SkipTo, bytes, None]


class ByteWalk:
    """Progress of one walk.

    :param steps: a generator that has not been started.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._taken = bytearray()
        self._skipped = 0
        #: Bytes of the file so far.
        self.offset = 0
        #: Whether the end of the file was reached; further bytes do not belong to it.
        self.ended = False
        self._step = next(steps)

    @property
    def may_end(self) -> bool:
        """Whether the file is complete if no further byte follows."""
        step = self._step
        return self.ended or (isinstance(step, Take) and step.may_end and not self._taken)

    @property
    def skippable(self) -> int:
        """Number of the next bytes that are skipped in one step."""
        return self._step.count - self._skipped if isinstance(self._step, Skip) else 0

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the file, any number of them.

        :raises NotMedia: as soon as they cannot belong to such a file.
        """
        position = 0
        while position < len(data) and not self.ended:
            position = self._take_step(data, position)
        self.offset += len(data)

    def _take_step(self, data: bytes, position: int) -> int:
        """Process as much of `data` as the current step wants; return the position behind it."""
        step = self._step
        if isinstance(step, SkipTo):
            found = data.find(step.byte, position)
            if found < 0:
                return len(data)
            self._advance(b"")
            return found + 1
        if isinstance(step, Skip):
            end = min(len(data), position + step.count - self._skipped)
            self._skipped += end - position
            if self._skipped == step.count:
                self._advance(b"")
            return end
        end = min(len(data), position + step.count - len(self._taken))
        self._taken += data[position:end]
        if len(self._taken) == step.count:
            self._advance(bytes(self._taken))
        return end

    def _advance(self, taken: bytes) -> None:
        self._taken.clear()
        self._skipped = 0
        try:
            self._step = self._steps.send(taken)
            while isinstance(self._step, Take | Skip) and not self._step.count:
                self._step = self._steps.send(b"")
        except StopIteration:
            self.ended = True
