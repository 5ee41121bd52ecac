"""A client as services have it: many tasks that do many things, task groups, other loops and threads, two processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import pytest
from anyio.abc import TaskStatus

from pika_async import (
    CallbackReceiver,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobSettled,
    JobStatus,
    JournalInUse,
    Limits,
    PikaClient,
    PikaError,
    Video,
    WrongEventLoop,
)
from pika_async._journal.protocol import Journal
from pika_async.emulator import Emulator, Gateway
from tests.fakes import virtual_clock
from tests.fakes.journals import JOURNAL_KINDS, journal_factory
from tests.fakes.memory_gateway import client, gateway, until
from tests.fakes.raw_server import free_port
from tests.fakes.requirements import require_module

S = JobStatus
T = TypeVar("T")
CAT: Final = GenerationRequest("a cat", key="cat")


@pytest.fixture(params=JOURNAL_KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return journal_factory(request.param, tmp_path, monkeypatch)()


def counts(pika: PikaClient) -> tuple[int, ...]:
    """What is under way, which is to be nothing in the end."""
    stats = pika.stats()
    return stats.planned, stats.submitting, stats.in_flight, stats.due, stats.polling, len(pika.active_jobs())


# --- many tasks -----------------------------------------------------------------------------------------------------

KEYS: Final = 150


class Crowd:
    """Tasks that do everything that a client can, with keys that they share; each may be cancelled at any time."""

    def __init__(self, seed: int, at: Gateway, pika: PikaClient) -> None:
        self.chance = random.Random(seed)
        self.at = at
        self.pika = pika
        self.event_numbers: list[int] = []
        self.done: Counter[str] = Counter()

    def request(self) -> GenerationRequest:
        number = self.chance.randrange(KEYS)
        return GenerationRequest(f"prompt {number}.", key=f"k-{number}")

    async def generate(self) -> None:
        assert isinstance(await self.pika.generate(self.request()), Video)

    async def submit(self) -> None:
        job = await self.pika.submit(self.request())
        assert job.task_id is not None
        with contextlib.suppress(TimeoutError):
            assert (await self.pika.wait(job, timeout=20)).status in {S.SUCCEEDED, S.UNKNOWN}

    async def run(self) -> None:
        wanted = {request.key: request for request in (self.request() for _ in range(5))}
        report = await self.pika.run(list(wanted.values()))
        assert [job.key for job in report.jobs] == list(wanted)

    async def read(self) -> None:
        async with contextlib.aclosing(self.pika.events()) as events:
            async for event in events:
                self.event_numbers.append(event.number)
                if isinstance(event, JobSettled):
                    break

    async def poll(self) -> None:
        for job in self.pika.active_jobs()[:3]:
            if job.task_id is not None:
                assert (await self.pika.poll(job)).task_id == job.task_id
        found = await self.pika.job(self.request().key or "")
        if found is not None:
            alike = [job for job in await self.pika.jobs(found.status) if job.key == found.key]
            assert [(job.task_id, job.polls) for job in alike] == [(found.task_id, found.polls)]
        assert self.pika.stats().charges <= KEYS

    async def resolve(self) -> None:
        """Resolve a doubt as a person does who found the task at the provider."""
        charged = {charge.prompt: charge.task_id for charge in self.at.ledger}
        for job in await self.pika.jobs(S.UNKNOWN):
            task_id = charged.get(job.request.prompt)
            said: dict[str, Any] = {"charged": False} if task_id is None else {"task_id": task_id}
            with contextlib.suppress(InvalidRequest):  # somebody else has said it
                await self.pika.resolve(job.key, **said)

    async def act(self, name: str) -> None:
        with contextlib.suppress(PikaError):
            await getattr(self, name)()
        self.done[name] += 1


ACTS: Final = ("generate", "submit", "run", "read", "poll", "resolve")
#: Every tenth answer to a submission is lost, half of those were charged; some submissions are refused for now.
TROUBLE: Final[list[dict[str, Any]]] = [
    {"on": "create", "every": 17, "do": {"fault": "drop", "when": "before-reply"}},
    {"on": "create", "every": 19, "do": {"fault": "drop", "charge": False}},
    {"on": "create", "every": 7, "do": {"fault": "refuse", "as": "rate", "retry_after": 1}},
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_many_tasks_do_at_once_each_key_is_paid_once(seed: int, journal: Journal) -> None:
    """600 of six kinds, a third of them cancelled anywhere, answers lost: every charge is a job's, none is twice."""

    async def story() -> None:
        random.seed(seed)
        at = gateway(TROUBLE, durations="lognormal:10,0.5")
        limits = Limits(max_in_flight=25, submitting=8, polling=8)
        async with client(at, journal=journal, limits=limits) as pika:
            crowd = Crowd(seed, at, pika)
            tasks = []
            for number in range(600):
                tasks.append(asyncio.create_task(crowd.act(ACTS[number % len(ACTS)])))
                await asyncio.sleep(crowd.chance.expovariate(4))
                if number % 3 == 0:
                    crowd.chance.choice(tasks).cancel()
            await asyncio.sleep(100)
            for _ in range(5):
                await crowd.resolve()
                await pika.resume()
            for task in tasks:
                task.cancel()  # readers that nothing settles for any more
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [end for end in ended if not isinstance(end, asyncio.CancelledError | None)] == []
            assert set(crowd.done) == set(ACTS)
            jobs = await pika.jobs()
            assert {job.status for job in jobs} <= {S.SUCCEEDED, S.CANCELED}
            charged = {charge.prompt: charge.task_id for charge in at.ledger}
            assert {job.request.prompt: job.task_id for job in jobs if job.status is S.SUCCEEDED} == charged
            assert len(charged) == len(at.ledger) == pika.stats().charges > KEYS / 2
            assert counts(pika) == (0,) * 6

    virtual_clock.run(story())


# --- task groups ----------------------------------------------------------------------------------------------------


def test_a_cancelled_scope_withdraws_what_was_not_sent(journal: Journal) -> None:
    """Of ten in a scope that ends, the two that were sent go on and are given to who asks again; eight cost nothing."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, journal=journal, limits=Limits(max_in_flight=2)) as pika:
            with anyio.move_on_after(10) as scope:
                async with anyio.create_task_group() as group:
                    for number in range(10):
                        group.start_soon(pika.generate, GenerationRequest(f"p{number}", key=f"k{number}"))
            assert scope.cancelled_caught
            assert Counter(job.status for job in await pika.jobs()) == {S.QUEUED: 2, S.CANCELED: 8}
            assert [(await pika.wait(job)).status for job in pika.active_jobs()] == [S.SUCCEEDED] * 2
            assert (await pika.generate(GenerationRequest("p9", key="k9"))).url
            assert counts(pika) == (0,) * 6
        assert len(at.ledger) == 3

    virtual_clock.run(story())


def test_a_child_that_raises_ends_its_siblings_and_not_the_client(journal: Journal) -> None:
    """The group gets the error; what its siblings had sent is paid once and settles."""

    async def story() -> None:
        at = gateway(durations="constant:60")

        async def fail() -> None:
            await asyncio.sleep(10)
            raise ValueError("mine")

        async def together(pika: PikaClient) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(pika.generate, CAT)
                group.start_soon(pika.run, ["a dog", "a heron"])
                group.start_soon(fail)

        async with client(at, journal=journal) as pika:
            with pytest.raises(ExceptionGroup) as caught:
                await together(pika)
            assert [str(error) for error in caught.value.exceptions] == ["mine"]
            assert (await pika.resume()).counts == {S.SUCCEEDED: 3}
            assert counts(pika) == (0,) * 6
        assert len(at.ledger) == 3

    virtual_clock.run(story())


def test_a_client_may_live_in_a_task_of_its_own(journal: Journal) -> None:
    """Started with `group.start`, it is used by others, and closed when its scope is cancelled: nothing is lost."""

    async def story() -> None:
        at = gateway(durations="constant:60")

        async def live(*, task_status: TaskStatus[PikaClient]) -> None:
            async with client(at, journal=journal) as pika:
                task_status.started(pika)
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            pika = await group.start(live)
            job = await pika.submit(CAT)
            group.cancel_scope.cancel()
        assert not pika.stats().open
        async with pika:
            assert (await pika.wait(job)).status is S.SUCCEEDED
        assert len(at.ledger) == 1

    virtual_clock.run(story())


# --- loops ----------------------------------------------------------------------------------------------------------


def _uvloop(main: Coroutine[Any, Any, T]) -> T:
    uvloop = require_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("run", [asyncio.run, _uvloop], ids=["asyncio", "uvloop"])
def test_one_client_in_one_loop_after_another(run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path) -> None:
    """Three runs of one client: callbacks on the same port, hooks, a journal and files, under either loop."""
    settled: list[str] = []
    port = free_port()

    async def batch(pika: PikaClient, emulator: Emulator, number: int) -> None:
        requests = [GenerationRequest(f"prompt {one}", key=f"k{one}") for one in range(4 * number)]
        async with pika:
            report = await pika.run(requests, download_to=tmp_path)
        assert report.counts == {S.SUCCEEDED: 4 * number}
        assert sorted(file.stem for file in tmp_path.glob("*.mp4")) == sorted(job.key for job in report.jobs)
        assert len(emulator.ledger) == len(settled) == 4 * number
        assert {result.status for result in emulator.callbacks} == {202}

    with Emulator(durations="constant:0.1", render=False).in_thread() as emulator:
        pika = PikaClient(
            "cometapi", api_key=emulator.api_key, base_url=emulator.base_url("cometapi"),
            journal=tmp_path / "j.db", callbacks=CallbackReceiver(f"http://127.0.0.1:{port}", port=port),
            polling=FixedInterval(0.5),
        )  # fmt: skip

        @pika.on_settled
        def hook(job: Job) -> None:
            settled.append(job.key)

        for number in (1, 2, 3):
            run(batch(pika, emulator, number))


Call = Callable[[PikaClient, Job], Awaitable[Any]]


async def _events(pika: PikaClient) -> None:
    async for _ in pika.events(0):
        return


async def _hook(pika: PikaClient) -> None:
    pika.on_settled(print)


CALLS: Final[dict[str, Call]] = {
    "generate": lambda pika, _: pika.generate("a dog"),
    "submit": lambda pika, _: pika.submit("a dog"),
    "wait": lambda pika, job: pika.wait(job),
    "poll": lambda pika, job: pika.poll(job),
    "download": lambda pika, job: pika.download(job, "a.mp4"),
    "run": lambda pika, _: pika.run(["a dog"]),
    "as_settled": lambda pika, _: anext(pika.as_settled(["a dog"])),
    "resume": lambda pika, _: pika.resume(),
    "resolve": lambda pika, job: pika.resolve(job.key, abandon=True),
    "resubmit": lambda pika, job: pika.resubmit(job.key),
    "events": lambda pika, _: _events(pika),
    "on_settled": lambda pika, _: _hook(pika),
    "aclose": lambda pika, _: pika.aclose(),
    "open": lambda pika, _: pika.__aenter__(),
}


async def elsewhere(call: Callable[[], Awaitable[Any]]) -> Any:
    """What `call` gave or raised in another loop, in a thread; this one goes on meanwhile."""
    said: list[Any] = []

    async def use() -> None:
        async with asyncio.timeout(5):
            said.extend(await asyncio.gather(call(), return_exceptions=True))

    thread = threading.Thread(target=asyncio.run, args=(use(),))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.005)
    return said[0]


@pytest.mark.parametrize("call", CALLS)
def test_another_loop_gets_the_way_to_the_clients_own(call: str) -> None:
    """Its parts would wait in one loop for what happens in another: every call says so, and the client works on."""

    async def story() -> None:
        at = gateway(durations="constant:0.1")
        async with client(at, polling=FixedInterval(0.05)) as pika:
            job = await pika.submit(CAT)
            error = await elsewhere(lambda: CALLS[call](pika, job))
            assert isinstance(error, WrongEventLoop) and isinstance(error, RuntimeError)  # noqa: PT018
            assert "open in another event loop: call it there" in str(error)
            assert (await pika.wait(job)).status is S.SUCCEEDED
            assert [job.key for job in await pika.jobs()] == ["cat"]
        assert len(at.ledger) == 1

    asyncio.run(story())


def test_the_way_out_of_another_loop_works() -> None:
    """`run_coroutine_threadsafe` from a thread without a loop gets its video."""

    async def story() -> None:
        async with client(gateway(durations="constant:0.1"), polling=FixedInterval(0.05)) as pika:
            loop = asyncio.get_running_loop()
            video = await asyncio.to_thread(
                lambda: asyncio.run_coroutine_threadsafe(pika.generate(CAT), loop).result(10)
            )
            assert video.url

    asyncio.run(story())


@pytest.mark.parametrize("call", ["aclose", "open"])
def test_another_loop_does_not_wait_for_a_closing(call: str) -> None:
    """It would wait for a task of a loop that is not its own, without an end."""

    async def story() -> None:
        pika = client(gateway(durations="constant:0.1"), polling=FixedInterval(0.05))
        done = asyncio.Event()

        @pika.on_settled
        async def slow(_: Job) -> None:
            await done.wait()

        async with pika:
            job = await pika.wait(await pika.submit(CAT))
            closing = asyncio.create_task(pika.aclose())
            await until(lambda: pika._lifetime.closing is not None, 0.005)
            error = await elsewhere(lambda: CALLS[call](pika, job))
            assert isinstance(error, WrongEventLoop) and isinstance(error, RuntimeError)  # noqa: PT018
            assert "another event loop" in str(error)
            done.set()
            await closing

    asyncio.run(story())


# --- processes ------------------------------------------------------------------------------------------------------

SECOND = """
import asyncio, sys
from pika_async import JournalInUse, PikaClient
async def main():
    try:
        async with PikaClient("cometapi", api_key="k", journal=sys.argv[1]): pass
    except JournalInUse as error: print(error)
asyncio.run(main())
"""


def test_a_second_client_of_a_journal_gets_the_way_out(tmp_path: Path) -> None:
    """In the same process, share the client; in another one, wait, or give each a client and a file of its own."""
    path = tmp_path / "j.db"

    async def story() -> None:
        at = gateway()
        async with client(at, journal=path):
            with pytest.raises(JournalInUse) as caught:
                await client(at, journal=path).__aenter__()
            assert str(caught.value) == (
                f"journal: {path} is in use by another client of this process; "
                "share that one among your tasks, or close it first"
            )
            said = subprocess.run([sys.executable, "-c", SECOND, str(path)], capture_output=True, text=True, check=True)
            assert said.stdout.strip() == (
                f"journal: {path} is in use by process {os.getpid()}; "
                "wait for it or stop it, or give each process a file and one client of its own"
            )
        async with client(at, journal=path) as pika:
            assert pika.stats().open

    asyncio.run(story())


def test_a_job_is_found_by_its_key(journal: Journal) -> None:
    """An active job has the polls so far; a client that is not open returns jobs too, and None for an unknown key."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, journal=journal, polling=FixedInterval(10)) as pika:
            assert await pika.job("cat") is None
            await pika.submit(CAT)
            await asyncio.sleep(35)
            job = await pika.job("cat")
            assert job is not None
            assert (job.status, job.polls, [job]) == (S.RUNNING, 3, pika.active_jobs())
            await pika.wait(job)
        later = client(at, journal=journal)
        job = await later.job("cat")
        assert job is not None
        assert (job.status, await later.job("dog")) == (S.SUCCEEDED, None)

    virtual_clock.run(story())
