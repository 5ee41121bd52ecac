"""The folder of a batch: its journal, its results, its videos and its page. Sends nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs
import cattrs

from pika_async._journal.sqlite import SqliteJournal
from pika_async._runtime.resolution import recover_interrupted
from pika_async._runtime.results import needs_download
from pika_async.cli.exits import UsageError
from pika_async.cli.results import ResultsWriter
from pika_async.polling import AdaptivePolling

__all__ = ["BatchFolder", "BatchOptions"]

#: What a download that was killed leaves behind.
_STALE_DOWNLOAD: Final = re.compile(r"\.pika-[0-9a-f]{24}\.(part|mode)")


@attrs.frozen(kw_only=True)
class BatchOptions:
    """What a batch was told; kept in its journal, so that `resume` holds to it."""

    max_in_flight: int | None = None
    max_charges: int | None = None
    deadline: float | None = None
    expected_seconds: float | None = None
    download: bool = True
    ambiguous: Literal["strict", "lenient"] = "strict"
    callbacks: str | None = None
    listen: str | None = None

    @property
    def polling(self) -> AdaptivePolling:
        """A policy that has learned nothing yet."""
        return AdaptivePolling(expected_seconds=self.expected_seconds)


@attrs.define
class BatchFolder:
    """`root` and what lies in it."""

    root: Path
    journal: SqliteJournal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal = SqliteJournal(self.journal_file)

    @property
    def journal_file(self) -> Path:
        """What is known of every job."""
        return self.root / "journal.db"

    @property
    def results_file(self) -> Path:
        """A line for every job."""
        return self.root / "results.jsonl"

    @property
    def videos(self) -> Path:
        """Where the files are; absolute, as the journal has them, and so the same from wherever it is asked."""
        assert self.journal.path is not None  # noqa: S101 - it is a file
        return self.journal.path.parent / "videos"

    @property
    def is_new(self) -> bool:
        """Whether no batch ran here before."""
        return not self.journal_file.exists()

    def create(self, keys: Collection[str]) -> None:
        """Make the folder, for jobs of these `keys`, whose files will be put there.

        :raises UsageError: if it cannot be used, or holds what is no batch's and would be in the way.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if self.is_new:
                in_the_way = [self.results_file, self.root / "index.html"]
                in_the_way += [self.root / "videos" / f"{key}.mp4" for key in keys]
                for path in in_the_way:
                    if path.exists() or path.is_symlink():
                        raise UsageError(f"--out: {path} is there already and is not overwritten; choose another --out")
        except FileExistsError:
            raise UsageError(f"--out: {self.root} is no folder; choose another --out; nothing was sent") from None
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None

    async def recover(self) -> None:
        """Bring the journal up to date, with what an earlier command left; so that it can be read before it is ours.

        :raises ConfigurationError: if it is in use or cannot be used.
        :raises JournalFailed: if it cannot be written.
        """
        if self.is_new:
            return
        await self.journal.open()
        try:
            await recover_interrupted(self.journal)
        finally:
            await self.journal.close()

    def require_existing(self) -> None:
        """:raises UsageError: if no batch ran here."""
        if self.is_new:
            raise UsageError(f"{self.root} holds no journal.db; give the --out folder of a batch")

    def start_results(self, positions: Mapping[str, int], *, download: bool) -> ResultsWriter:
        """A new `results.jsonl` with what is settled already, and with every job that has no position in this command.

        Downloads that were killed are swept away: the journal is ours alone now.

        :raises UsageError: if it cannot be written.
        """
        try:
            for path in self.videos.iterdir() if self.videos.is_dir() else ():
                if _STALE_DOWNLOAD.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            settled = (
                attrs.evolve(job, index=positions.get(job.key, job.index))
                for job in self.journal.all()
                if job.key not in positions or (job.is_final and not (download and needs_download(job)))
            )
            return ResultsWriter.replacing(self.results_file, settled)
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None

    def options(self) -> BatchOptions:
        """What the batch was told.

        :raises UsageError: if it cannot be read.
        """
        try:
            return cattrs.structure(self.journal.get_setting("terms") or {}, BatchOptions)
        except (cattrs.BaseValidationError, TypeError, ValueError):
            reason = "holds limits that cannot be read; upgrade pika_async, or restore a copy of the file"
            raise UsageError(f"{self.journal_file} {reason}") from None

    async def save_options(self, options: BatchOptions) -> None:
        """:raises JournalFailed: if they could not be kept."""
        await self.journal.set_setting("terms", cattrs.unstructure(options))

    def command(self, name: str, *rest: str) -> str:
        """The command `name` for this folder, to be copied."""
        root = str(self.root)
        return shlex.join(["pika-async", name, f"./{root}" if root.startswith("-") else root, *rest])
