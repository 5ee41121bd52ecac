"""`demo`: a batch for each of the four providers at once, on an emulator in this process. Needs no key."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async.cli.batch import FINISHING_TEXT, BatchOutcome, ProviderBatch, finish_gallery
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.demo_prompts import demo_requests
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.forecast import Forecast, MergedForecast
from pika_async.cli.job_counts import CurrentJobs
from pika_async.cli.loop import run_in_loop
from pika_async.cli.optional_deps import require_emulator
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter
from pika_async.cli.signals import interruptible
from pika_async.cli.spending import Before
from pika_async.cli.terminal import Terminal, linked, plain, table
from pika_async.cli.words import counted
from pika_async.client import PikaClient
from pika_async.emulator import EMULATED_GATEWAYS, Charge, Emulator
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling import AdaptivePolling
from pika_async.providers import find_provider
from pika_async.report.page import GENERATOR_TAG, STATIC_FILES
from pika_async.report.writer import GalleryWriter

__all__ = ["demo"]

#: Durations as real gateways have them, a minute in the median, shortened to a second and a half.
_DURATIONS: Final = "lognormal:60,0.4"
_TIME_SCALE: Final = 0.025
#: Length of the emulator's videos in seconds; longer ones take longer to draw.
_VIDEO_LENGTH_S: Final = 4.0
_DEMO_TAG: Final = GENERATOR_TAG.format(maker="demo")
_OWN_FILES: Final = re.compile(rf"({'|'.join(EMULATED_GATEWAYS)})-[0-9]{{3,}}\.(mp4|jpg)|\.pika-[0-9a-f]+\.part")

_FAILED: Final = (JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN, JobStatus.TIMED_OUT)


@attrs.frozen(kw_only=True)
class ProviderTotals:
    """Totals of one provider, from our jobs and from the emulator's ledger."""

    name: str
    jobs: Sequence[Job]
    charges: Sequence[Charge]
    bytes: int

    @property
    def charged_once_each(self) -> bool:
        """Whether the ledger holds exactly one charge for each prompt that was sent and no other charge."""
        sent = Counter(job.request.prompt for job in self.jobs if job.attempts)
        return Counter(charge.prompt for charge in self.charges) == sent


def demo(out: Path, prompts: int, seed: int, terminal: Terminal) -> ExitCode:
    """Run the demo into `out`.

    :param out: folder for the results; those of an earlier demo are replaced.
    :param prompts: number of prompts, 1 or more.
    :param seed: seed of the prompts and of the durations.
    :raises UsageError: if the emulator's extra is missing, or `out` holds files that no demo made.
    """
    require_emulator()
    _clear_folder(out)
    started = time.monotonic()
    with ResultsWriter(out / "results.jsonl") as results:
        gallery = GalleryWriter(out, "pika_async demo", maker="demo")
        gallery.write()
        outcome, emulator = run_in_loop(_run(prompts, seed, results, gallery, terminal))
        seconds = time.monotonic() - started
        finishing = finish_gallery(gallery, terminal, posters=not outcome.interrupted)
        on_interrupt = partial(terminal.note, FINISHING_TEXT)
        page, cancelled = run_in_loop(interruptible(finishing, on_interrupt, lost="the gallery may lack posters"))
        outcome = attrs.evolve(outcome, posters_interrupted=cancelled)
    totals = _provider_totals(outcome.jobs, emulator.ledger)
    _show_totals(totals, terminal, seconds)
    correct = all(each.charged_once_each for each in totals) and not emulator.cdn_credentials
    terminal.show(_charge_summary(totals, len(emulator.cdn_credentials)))
    if cancelled:
        terminal.note("interrupted while posters were drawn: the gallery is whole without the rest")
    if page is not None:
        terminal.show(linked(page, "gallery: "))
    terminal.show(linked(out / "results.jsonl", "results: "))
    return outcome.code if correct or outcome.code else ExitCode.INCOMPLETE


def _clear_folder(out: Path) -> None:
    """Create the folder, or remove the files of an earlier demo from it."""
    way_out = "choose another --out, or remove it; nothing was changed"
    try:
        if out.is_dir() and any(out.iterdir()):
            page = out / "index.html"
            if not (
                (out / "results.jsonl").is_file() and page.is_file() and _DEMO_TAG in page.read_text(encoding="utf-8")
            ):
                raise UsageError(f"--out: {out} must be empty or hold an earlier demo; {way_out}")
            for folder in (out / "videos", out / "posters"):
                for file in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
                    if _OWN_FILES.fullmatch(file.name):
                        file.unlink()
            for name in ("results.jsonl", "index.html", *(f"assets/{name}" for name in STATIC_FILES)):
                (out / name).unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "its index.html is not text"
        raise UsageError(f"--out: {out} cannot be used: {reason}; {way_out}") from None


async def _run(
    prompts: int, seed: int, results: ResultsWriter, gallery: GalleryWriter, terminal: Terminal
) -> tuple[BatchOutcome, Emulator]:
    emulator = Emulator(durations=_DURATIONS, time_scale=_TIME_SCALE, seed=seed, video_seconds=_VIDEO_LENGTH_S)
    batches: list[ProviderBatch] = []
    ended: list[Job] = []
    dealt = demo_requests([find_provider(name) for name in EMULATED_GATEWAYS], prompts, seed)

    async def current_jobs() -> CurrentJobs:
        return CurrentJobs(ended, [job for batch in batches for job in (await batch.current_jobs()).others])

    def update() -> None:
        for batch in batches:
            batch.update_gallery()

    forecast = MergedForecast()
    display = ProgressDisplay(terminal, current_jobs, prompts, forecast=forecast)

    async def work() -> BatchOutcome:
        interrupted = False
        try:
            async with emulator:
                batches.extend(_batches(emulator, dealt, results, gallery, terminal, ended=ended))
                forecast.parts = [_forecast(batch) for batch in batches]
                gallery.expect([one.key for batch in batches for one in batch.inputs])
                async with display, gallery.refreshing(update), asyncio.TaskGroup() as group:
                    for batch in batches:
                        group.create_task(
                            _run_batch(batch, gallery.root), name=f"pika_async demo {batch.client.provider.name}"
                        )
        except asyncio.CancelledError:
            interrupted = True
        jobs = [job for batch in batches for job in await batch.finish(None)]
        return BatchOutcome(jobs=jobs, interrupted=interrupted)

    def on_interrupt() -> None:
        display.stop()
        terminal.note("stopping")

    terminal.note(
        f"{counted(prompts, 'prompt')} through {', '.join(EMULATED_GATEWAYS)}, on an emulator in this process"
    )
    return await interruptible(work(), on_interrupt), emulator


def _batches(
    emulator: Emulator,
    dealt: Mapping[str, Sequence[GenerationRequest]],
    results: ResultsWriter,
    gallery: GalleryWriter,
    terminal: Terminal,
    *,
    ended: list[Job],
) -> list[ProviderBatch]:
    return [
        ProviderBatch(
            _client(emulator, name, journal),
            _input_requests(requests, number),
            results,
            gallery,
            terminal,
            journal,
            ended=ended,
        )
        for number, (name, requests) in enumerate(dealt.items())
        for journal in [MemoryJournal()]
        if requests
    ]


def _input_requests(requests: Sequence[GenerationRequest], first: int) -> list[InputRequest]:
    step = len(EMULATED_GATEWAYS)
    return [InputRequest(request, first + number * step, "demo") for number, request in enumerate(requests)]


def _client(emulator: Emulator, name: str, journal: Journal) -> PikaClient:
    return PikaClient(
        name,
        api_key=emulator.api_key,
        base_url=emulator.base_url(name),
        journal=journal,
        polling=AdaptivePolling(expected_seconds=60 * _TIME_SCALE),
        limits=Limits(downloading=2),
    )


def _forecast(batch: ProviderBatch) -> Forecast:
    return Forecast(
        client=batch.client, requests=[one.request for one in batch.inputs], before=Before(), journal=batch.journal,
        options=BatchOptions(expected_seconds=60 * _TIME_SCALE),
    )  # fmt: skip


async def _run_batch(batch: ProviderBatch, out: Path) -> None:
    async with batch.client:
        await batch.run(out / "videos")


def _provider_totals(jobs: Sequence[Job], ledger: Sequence[Charge]) -> list[ProviderTotals]:
    totals = []
    for name in EMULATED_GATEWAYS:
        its_jobs = [job for job in jobs if job.provider == name]
        charges = [charge for charge in ledger if charge.provider == name]
        size = sum(job.file.stat().st_size for job in its_jobs if job.file is not None)
        totals.append(ProviderTotals(name=name, jobs=its_jobs, charges=charges, bytes=size))
    return totals


def _show_totals(totals: Sequence[ProviderTotals], terminal: Terminal, seconds: float) -> None:
    shown = table(
        "Demo", "provider", "jobs", "succeeded", "failed", "charges", "polls", "median", "files", "MB", "time", right=1,
    )  # fmt: skip
    for each in totals:
        shown.add_row(*map(plain, _figures(each.name, [each])))
    shown.add_section()
    shown.add_row(*(plain(figure, "bold") for figure in _figures("all", totals)))
    terminal.show(shown)
    terminal.show(
        f"{seconds:.1f} s in total; polls: of a job, in the mean; median: duration of a generation as the client "
        "measured it; every file is a verified MP4 with its SHA-256 in results.jsonl"
    )


def _figures(name: str, totals: Sequence[ProviderTotals]) -> list[str]:
    jobs = [job for each in totals for job in each.jobs]
    counts: Mapping[JobStatus, int] = Counter(job.status for job in jobs)
    submitted = [job.submitted_at for job in jobs if job.submitted_at]
    settled = [job.settled_at for job in jobs if job.settled_at]
    durations = [
        (job.settled_at - job.submitted_at).total_seconds() for job in jobs if job.settled_at and job.submitted_at
    ]
    return [
        name,
        str(len(jobs)),
        str(counts[JobStatus.SUCCEEDED]),
        str(sum(counts[status] for status in _FAILED)),
        str(sum(len(each.charges) for each in totals)),
        f"{sum(job.polls for job in jobs) / max(1, len(jobs)):.1f}",
        f"{statistics.median(durations):.2f} s" if durations else "-",
        str(sum(job.file is not None for job in jobs)),
        f"{sum(each.bytes for each in totals) / 1e6:.1f}",
        f"{(max(settled) - min(submitted)).total_seconds():.0f} s" if submitted and settled else "-",
    ]


def _charge_summary(totals: Sequence[ProviderTotals], credentials: int) -> str:
    charges = sum(len(each.charges) for each in totals)
    sent = sum(bool(job.attempts) for each in totals for job in each.jobs)
    once = "yes" if all(each.charged_once_each for each in totals) else "NO"
    return (
        f"one charge for each prompt: {once} ({counted(charges, 'charge')} in the emulator's ledger, "
        f"{counted(sent, 'prompt')} sent)\n"
        f"credentials seen at the CDN: {credentials}"
    )
