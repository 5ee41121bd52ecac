"""Folder of a batch: its journal, results, videos and page. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import anyio.to_thread
import attrs
import cattrs

from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._http.partial_file import UNFINISHED_NAME
from pika_async._journal.lock import find_owner
from pika_async._journal.protocol import Journal
from pika_async._journal.schema import is_blank
from pika_async._journal.sqlite import SqliteJournal
from pika_async._runtime.admission import may_be_sent
from pika_async._runtime.job_files import needs_download
from pika_async._runtime.pacing import paced
from pika_async._runtime.resolution import recover_interrupted, resolve
from pika_async.cli.exits import UsageError
from pika_async.cli.file_names import TRIED_SUFFIX, check_file_names
from pika_async.cli.folder_indices import folder_indices
from pika_async.cli.results import ResultsWriter
from pika_async.config.accounts import Strategy
from pika_async.jobs import Job
from pika_async.polling import AdaptivePolling
from pika_async.report.cards import folder_subject, is_shown
from pika_async.report.page import page_files

__all__ = ["BatchFolder", "BatchOptions", "starting_text"]


@attrs.frozen(kw_only=True)
class BatchOptions:
    """Options of a batch, saved in its journal so that `resume` applies them too.

    :param max_in_flight: most generations at once; default None, as many as the account takes.
    :param max_charges: most accepted submissions of all commands in the folder; default None, no limit.
    :param deadline: seconds from a job's acceptance to its end; default None, the client's.
    :param expected_seconds: expected duration of a generation, in seconds; default None, the policy's.
    :param download: whether to download the videos; default True.
    :param ambiguous: "lenient" sends again after a bare 503; default "strict".
    :param grace: seconds that an interrupt waits for receipts under way; default None, the client's.
    :param callbacks: public URL for callbacks; default None, no callbacks.
    :param listen: HOST:PORT or PORT to listen on for callbacks; default None.
    :param price: price of one charge, in a unit of the user's; default None, unknown.
    :param budget: money for all charges of all commands in the folder; default None, no limit.
    :param accounts: absolute path of a file of accounts; default None, one provider.
    :param routing: choice between these accounts; default None, by capacity.
    :param videos: absolute path of another folder for the videos, or `s3://BUCKET/PREFIX/`; default None, its own.
    """

    max_in_flight: int | None = None
    max_charges: int | None = None
    deadline: float | None = None
    expected_seconds: float | None = None
    download: bool = True
    ambiguous: Literal["strict", "lenient"] = "strict"
    grace: float | None = None
    callbacks: str | None = None
    listen: str | None = None
    price: float | None = None
    budget: float | None = None
    accounts: str | None = None
    routing: Strategy | None = None
    videos: str | None = None

    @property
    def polling(self) -> AdaptivePolling:
        """New polling policy without any samples."""
        return AdaptivePolling(expected_seconds=self.expected_seconds)


class FolderJournal(Journal, Protocol):
    """The journal of a folder: a file there, or what was read of a database."""

    @property
    def is_saved(self) -> bool: ...

    @property
    def is_displaced(self) -> bool: ...

    def flush(self, timeout: float) -> object: ...

    def require_none_due(self) -> None: ...


@attrs.define
class BatchFolder:
    """A batch folder and the files in it."""

    root: Path
    journal: FolderJournal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal = SqliteJournal(self.journal_file)

    @property
    def title(self) -> str:
        """The name of the folder, for messages."""
        return str(self.root)

    @property
    def is_shared(self) -> bool:
        """Whether its jobs are those of a database, which others drive."""
        return False

    @property
    def stopped_accounts(self) -> Mapping[str, str]:
        """Why accounts are stopped in other processes, by their names."""
        return {}

    @property
    def has_results(self) -> bool:
        """Whether it has a `results.jsonl`."""
        return self.results_file.is_file()

    @property
    def journal_file(self) -> Path:
        """Path of the journal."""
        return self.root / "journal.db"

    @property
    def results_file(self) -> Path:
        """Path of `results.jsonl`."""
        return self.root / "results.jsonl"

    @property
    def table_file(self) -> Path:
        """Path of `results.csv`."""
        return self.root / "results.csv"

    @property
    def videos(self) -> Path:
        """Absolute path of the videos, as in the journal: it does not depend on the working directory."""
        assert self.journal.path is not None  # noqa: S101 - the journal is a file
        return self.journal.path.parent / "videos"

    def target(self, options: BatchOptions) -> Path | str | None:
        """Return where the videos go with `options`; None if none are downloaded."""
        return (options.videos or self.videos) if options.download else None

    @property
    def subject(self) -> Sequence[str]:
        """The words of a command that name its jobs, whatever the working directory."""
        return folder_subject(self.root)

    @property
    def is_new(self) -> bool:
        """Whether no batch has run here."""
        return not self.journal_file.exists()

    def create(self, keys: Collection[str]) -> None:
        """Create the folder.

        :param keys: keys of the jobs that will be downloaded into it.
        :raises UsageError: if it cannot be used, cannot hold a file for each key, or if a new batch would overwrite a
            file in it.
        """
        self.check(keys)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            check_file_names(self.root.absolute() / "videos", keys)
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None

    def check(self, keys: Collection[str], videos: Path | None = None) -> None:
        """Check that the folder can be used; create nothing. See `create`.

        :param videos: another folder for the videos; default: its own.
        """
        try:
            existing = next(path for path in (self.root, *self.root.absolute().parents) if os.path.lexists(path))
            if not existing.is_dir():
                raise FileExistsError if existing == self.root else NotADirectoryError(0, "Not a directory")
            if self.is_new:
                videos = videos or self.root / "videos"
                present = {path.name for path in videos.iterdir()} if videos.is_dir() else set()
                wanted = [f"{key}{suffix}" for key in keys for suffix in MEDIA_SUFFIXES] if present else []
                targets = [
                    path
                    for path in (self.results_file, self.table_file, *page_files(self.root))
                    if os.path.lexists(path)
                ]
                targets += [videos / name for name in wanted if name in present]
                if targets:
                    raise UsageError(f"--out: {targets[0]} exists and is never overwritten; choose another --out")
        except FileExistsError:
            raise UsageError(f"--out: {self.root} must be a folder; choose another --out; nothing was sent") from None
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None

    async def recover(self) -> None:
        """Complete the journal of an interrupted command, so that it can be read before the client opens it.

        :raises ConfigurationError: if the journal is in use or cannot be used.
        :raises JournalFailed: if the journal cannot be written.
        """
        if self.is_new:
            await asyncio.to_thread(self.journal.require_none_due)
            return
        await self.journal.open()
        try:
            await recover_interrupted(self.journal)
        finally:
            await self.journal.close()

    async def open(self) -> None:
        """Open the journal for changes, completed as `recover` does."""
        await self.journal.open()
        await recover_interrupted(self.journal)

    async def close(self) -> None:
        """Close the journal."""
        await self.journal.close()

    async def resolve(self, key: str, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
        """Record the outcome of a job in doubt; see `PikaClient.resolve`."""
        return await resolve(self.journal, key, task_id=task_id, charged=charged, abandon=abandon)

    def running_process(self) -> int | None:
        """Return the id of the process whose command runs here, None if there is none."""
        return find_owner(Path(os.path.realpath(self.journal_file)))

    def starting_process(self) -> int | None:
        """Return the id of the process whose batch begins here and has no journal yet, None if there is none.

        :raises JournalUnusable: if the file in place of the journal is not one.
        """
        return self.running_process() if self.is_new or is_blank(self.journal_file) else None

    def require_existing(self) -> None:
        """Raise unless a batch ran here.

        :raises JournalUnusable: if the journal was moved or removed while it was open, or is not one.
        :raises UsageError: if the folder has no journal, or an empty file in its place.
        """
        if (process := self.starting_process()) is not None:
            raise UsageError(f"{starting_text(self, process)}; wait a moment, then run this again")
        if self.is_new:
            self.journal.require_none_due()
            raise UsageError(f"{self.root} must hold a journal.db; give the --out folder of a batch")
        if is_blank(self.journal_file):
            raise UsageError(
                f"{self.journal_file} is empty and holds no jobs; restore it from a copy if a batch ran here, else "
                "start one with batch"
            )

    async def start_results(
        self,
        positions: Mapping[str, int],
        known: Mapping[str, int],
        visit: Callable[[Job], object],
        show: Callable[[Job], object],
        *,
        download: bool,
    ) -> ResultsWriter:
        """Continue `results.jsonl`, with the jobs that need nothing more and those outside of this command.

        Also removes what killed commands left behind. The journal must be open, so that no other process downloads.

        :param positions: index of each job of this command, by key.
        :param known: indices of other jobs of the folder that are known already, by key.
        :param visit: called with each job of the folder, as it is in the journal.
        :param show: called with each job that gets a line now, or that an earlier page has.
        :param download: whether jobs without their video still need one.
        :raises UsageError: if `results.jsonl` cannot be written.
        """
        indices = {**known, **positions}
        if any([key not in indices async for key in paced(self.journal.keys())]):
            indices = folder_indices([job async for job in paced(self.journal.all())], indices)
        try:
            await anyio.to_thread.run_sync(self._remove_stale_files)
            results = await anyio.to_thread.run_sync(partial(ResultsWriter, self.results_file, continues=True))
            with contextlib.ExitStack() as stack:
                stack.enter_context(results)
                async for job in paced(self.journal.all()):
                    visit(job)
                    index = indices.get(job.key, job.index)
                    placed = job if job.index == index else attrs.evolve(job, index=index)
                    has_ended = job.is_final and not may_be_sent(job) and not (download and needs_download(job))
                    if job.key not in positions or has_ended:
                        results.write(placed)
                        show(placed)
                    elif is_shown(job):  # a kill may come before the next page
                        show(placed)
                stack.pop_all()
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None
        return results

    def _remove_stale_files(self) -> None:
        for folder in (self.videos, self.videos.parent):  # a video that goes to a store is verified beside the journal
            for path in folder.iterdir() if folder.is_dir() else ():
                if UNFINISHED_NAME.fullmatch(path.name) or path.name.endswith(TRIED_SUFFIX):
                    path.unlink(missing_ok=True)

    def options(self) -> BatchOptions:
        """Return the saved options of the batch.

        :raises UsageError: if they cannot be read.
        """
        try:
            return cattrs.structure(self.journal.get_setting("terms") or {}, BatchOptions)
        except (cattrs.BaseValidationError, TypeError, ValueError):
            reason = "holds options that cannot be read; upgrade pika_async, or restore a copy of the file"
            raise UsageError(f"{self.journal_file} {reason}") from None

    async def save_options(self, options: BatchOptions) -> None:
        """Save the options of the batch.

        :raises JournalFailed: if they could not be saved.
        """
        await self.journal.set_setting("terms", cattrs.unstructure(options))

    def command(self, name: str, *rest: str) -> str:
        """Return the shell command `name` for this folder, quoted so that it can be copied."""
        root = str(self.root)
        return shlex.join(["pika-async", name, f"./{root}" if root.startswith("-") else root, *rest])


def starting_text(folder: BatchFolder, process: int) -> str:
    """Return that a batch of a process begins in `folder`."""
    return f"{folder.root}: a batch is starting here (process {process}); no jobs yet"
