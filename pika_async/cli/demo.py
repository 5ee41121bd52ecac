"""`demo`: hundreds of prompts through all four wires at once, on an emulator in this process. No key, no network."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from pika_async._planning.limits import Limits
from pika_async.cli.batch import BatchOutcome, ProviderBatch, finish_gallery
from pika_async.cli.demo_prompts import demo_requests
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.gallery import GENERATOR_TAG, write_gallery
from pika_async.cli.loop import run_in_loop
from pika_async.cli.optional_deps import require_emulator
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, plain, table
from pika_async.client import PikaClient
from pika_async.emulator import EMULATED_PROVIDERS, Charge, Emulator
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling import AdaptivePolling
from pika_async.providers import find_provider

__all__ = ["demo"]

#: A minute's generation, as lognormal as in the field, in a second and a half.
_DURATIONS: Final = "lognormal:60,0.4"
_TIME_SCALE: Final = 0.025
#: Seconds that the emulator's videos last: enough to see them move, soon drawn.
_VIDEO_SECONDS: Final = 4.0
_MARK: Final = GENERATOR_TAG.format(maker="demo")
_OWN_FILES: Final = re.compile(rf"({'|'.join(EMULATED_PROVIDERS)})-[0-9]{{3,}}\.(mp4|jpg)|\.pika-[0-9a-f]+\.part")


_FAILED: Final = (JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN, JobStatus.TIMED_OUT)


@attrs.frozen(kw_only=True)
class ProviderTotals:
    """How the demo went at one provider, by our jobs and by the emulator's ledger."""

    name: str
    jobs: Sequence[Job]
    charges: Sequence[Charge]
    bytes: int

    @property
    def charged_once_each(self) -> bool:
        """Whether the ledger holds exactly one charge for each prompt that was sent, and none for another."""
        sent = Counter(job.request.prompt for job in self.jobs if job.attempts)
        return Counter(charge.prompt for charge in self.charges) == sent


def demo(out: Path, prompts: int, seed: int, terminal: Terminal) -> ExitCode:
    """Run the demo into `out`.

    :raises UsageError: if the emulator's extra is missing, or `out` holds something that is not a demo's.
    """
    if prompts < 1:
        raise UsageError(f"--prompts: {prompts} is not above 0")
    require_emulator()
    _clear_folder(out)
    began = time.monotonic()
    with ResultsWriter(out / "results.jsonl") as results:
        write_gallery([], out, title="pika_async demo", maker="demo")
        ending, emulator = run_in_loop(_run(out, prompts, seed, results, terminal))
        seconds = time.monotonic() - began
        page = finish_gallery(
            list(results.rows.values()),
            out,
            terminal,
            title="pika_async demo",
            maker="demo",
            posters=not ending.interrupted,
        )
    accounts = _provider_totals(ending.jobs, emulator.ledger)
    _show_totals(accounts, terminal, seconds)
    honest = all(account.charged_once_each for account in accounts) and not emulator.cdn_credentials
    terminal.show(_charge_summary(accounts, len(emulator.cdn_credentials)))
    terminal.show(f"gallery: {page}\nresults: {out / 'results.jsonl'}")
    return ending.code if honest or ending.code else ExitCode.INCOMPLETE


def _clear_folder(out: Path) -> None:
    """An empty folder, or an earlier demo's without what that left."""
    way_out = "choose another --out, or remove it; nothing was touched"
    try:
        if out.is_dir() and any(out.iterdir()):
            page = out / "index.html"
            if not ((out / "results.jsonl").is_file() and page.is_file() and _MARK in page.read_text(encoding="utf-8")):
                raise UsageError(f"--out: {out} holds files that are no demo's; {way_out}")
            for folder in (out / "videos", out / "posters"):
                for file in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
                    if _OWN_FILES.fullmatch(file.name):
                        file.unlink()
            for name in ("results.jsonl", "index.html"):
                (out / name).unlink()
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "its index.html is no text"
        raise UsageError(f"--out: {out} cannot be used: {reason}; {way_out}") from None


async def _run(
    out: Path, prompts: int, seed: int, results: ResultsWriter, terminal: Terminal
) -> tuple[BatchOutcome, Emulator]:
    emulator = Emulator(durations=_DURATIONS, time_scale=_TIME_SCALE, seed=seed, video_seconds=_VIDEO_SECONDS)
    batches: list[ProviderBatch] = []

    async def look() -> list[Job]:
        return [job for batch in batches for job in await batch.current_jobs()]

    follower = ProgressDisplay(terminal, look, prompts)

    async def work() -> BatchOutcome:
        interrupted = False
        try:
            async with emulator:
                batches.extend(_batches(emulator, prompts, seed, results, terminal))
                async with follower, asyncio.TaskGroup() as group:
                    for batch in batches:
                        group.create_task(_run_batch(batch, out), name=f"pika_async demo {batch.client.provider.name}")
        except asyncio.CancelledError:
            interrupted = True
        jobs = [job for batch in batches for job in await batch.finish(None)]
        return BatchOutcome(jobs=jobs, interrupted=interrupted)

    def asked() -> None:
        follower.end()
        terminal.note("stopping")

    terminal.note(f"{prompts} prompts through {', '.join(EMULATED_PROVIDERS)}, on an emulator in this process")
    return await interruptible(work(), asked), emulator


def _batches(
    emulator: Emulator, prompts: int, seed: int, results: ResultsWriter, terminal: Terminal
) -> list[ProviderBatch]:
    providers = [find_provider(name) for name in EMULATED_PROVIDERS]
    dealt = demo_requests(providers, prompts, seed)
    return [
        ProviderBatch(_client(emulator, name), _input_requests(requests, number), results, terminal)
        for number, (name, requests) in enumerate(dealt.items())
        if requests
    ]


def _input_requests(requests: Sequence[GenerationRequest], first: int) -> list[InputRequest]:
    step = len(EMULATED_PROVIDERS)
    return [InputRequest(request, first + number * step, "demo") for number, request in enumerate(requests)]


def _client(emulator: Emulator, name: str) -> PikaClient:
    return PikaClient(
        name,
        api_key=emulator.api_key,
        base_url=emulator.base_url(name),
        polling=AdaptivePolling(expected_seconds=60 * _TIME_SCALE),
        limits=Limits(downloading=2),
    )


async def _run_batch(batch: ProviderBatch, out: Path) -> None:
    async with batch.client:
        await batch.run(out / "videos")


def _provider_totals(jobs: Sequence[Job], ledger: Sequence[Charge]) -> list[ProviderTotals]:
    accounts = []
    for name in EMULATED_PROVIDERS:
        ours = [job for job in jobs if job.provider == name]
        charges = [charge for charge in ledger if charge.provider == name]
        size = sum(job.file.stat().st_size for job in ours if job.file is not None)
        accounts.append(ProviderTotals(name=name, jobs=ours, charges=charges, bytes=size))
    return accounts


def _show_totals(totals: Sequence[ProviderTotals], terminal: Terminal, seconds: float) -> None:
    shown = table(
        "Demo", "provider", "jobs", "succeeded", "failed", "charges", "polls", "median", "files", "MB", "time", right=1,
    )  # fmt: skip
    for account in totals:
        shown.add_row(*map(plain, _figures(account.name, [account])))
    shown.add_section()
    shown.add_row(*(plain(figure, "bold") for figure in _figures("all", totals)))
    terminal.show(shown)
    terminal.show(
        f"{seconds:.1f} s in all; median: of the generations, as the client saw them; every file is a checked MP4, its "
        "SHA-256 in results.jsonl"
    )


def _figures(name: str, totals: Sequence[ProviderTotals]) -> list[str]:
    jobs = [job for account in totals for job in account.jobs]
    counts: Mapping[JobStatus, int] = Counter(job.status for job in jobs)
    begins = [job.submitted_at for job in jobs if job.submitted_at]
    ends = [job.settled_at for job in jobs if job.settled_at]
    times = [(job.settled_at - job.submitted_at).total_seconds() for job in jobs if job.settled_at and job.submitted_at]
    return [
        name,
        str(len(jobs)),
        str(counts[JobStatus.SUCCEEDED]),
        str(sum(counts[status] for status in _FAILED)),
        str(sum(len(account.charges) for account in totals)),
        f"{sum(job.polls for job in jobs) / max(1, len(jobs)):.1f}/job",
        f"{statistics.median(times):.2f} s" if times else "-",
        str(sum(job.file is not None for job in jobs)),
        f"{sum(account.bytes for account in totals) / 1e6:.1f}",
        f"{(max(ends) - min(begins)).total_seconds():.0f} s" if begins and ends else "-",
    ]


def _charge_summary(totals: Sequence[ProviderTotals], credentials: int) -> str:
    charges = sum(len(account.charges) for account in totals)
    sent = sum(bool(job.attempts) for account in totals for job in account.jobs)
    once = "yes" if all(account.charged_once_each for account in totals) else "NO"
    return (
        f"one charge for each prompt: {once} ({charges} charges in the emulator's ledger, {sent} prompts sent)\n"
        f"credentials seen at the CDN: {credentials}"
    )
