"""Control of a batch from its board: pause, resume, room, cancellation of what is planned, resolving of doubts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import attrs

from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.engines.protocol import BatchClient
from pika_async.errors import InvalidRequest, PikaError
from pika_async.jobs import Job

__all__ = ["BatchControl", "controlling"]

#: Names of the arguments of each change.
_ARGUMENTS: Final[Mapping[str, frozenset[str]]] = {
    "pause": frozenset(),
    "resume": frozenset(),
    "room": frozenset({"jobs"}),
    "cancel": frozenset(),
    "resolve": frozenset({"key", "task_id", "charged", "abandon"}),
}


@attrs.define
class BatchControl:
    """Control of the batches of one command, one client after the other. A pause and a room hold for the later ones.

    :param terminal: each change is announced there.
    """

    terminal: Terminal
    is_paused: bool = attrs.field(default=False, init=False)
    #: Whether what was planned has been canceled: later batches of the command send nothing either.
    is_canceled: bool = attrs.field(default=False, init=False)
    _room: int | None = attrs.field(default=None, init=False)
    _client: PikaClient | None = attrs.field(default=None, init=False)
    _following: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)

    @contextmanager
    def over(self, client: PikaClient) -> Iterator[None]:
        """Control the open `client` while the body runs."""
        self._client = client
        if self.is_paused:
            client.pause_submitting()
        if self._room is not None:
            client.set_max_in_flight(self._room)
        try:
            yield
        finally:
            self._client = None

    def state(self) -> dict[str, Any]:
        """Return what the page shows: whether a batch can be controlled, whether it is paused, and its room."""
        client = self._client
        stats = None if client is None else client.stats()
        if stats is None or not stats.open:
            return {"open": False, "paused": False, "room": None}
        return {"open": True, "paused": stats.paused, "room": stats.max_in_flight}

    async def change(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Carry out one change and announce it on the terminal; return what was done.

        :param name: pause, resume, room, cancel or resolve.
        :param arguments: `jobs` of a room; `key` and one of `task_id`, `charged` and `abandon` of a doubt.
        :raises LookupError: if there is no such change, or no batch that runs.
        :raises PikaError: if an argument cannot be used; nothing is changed.
        """
        if name not in _ARGUMENTS:
            raise LookupError("there is no such change")
        if unknown := sorted(set(arguments) - _ARGUMENTS[name]):
            raise InvalidRequest(field=unknown[0], value=arguments[unknown[0]], reason=f"is not an argument of {name}")
        client = self._client
        if client is None or not client.stats().open:
            raise LookupError("no batch runs here any more; nothing was changed")
        done = await self._carry_out(client, name, arguments)
        self.terminal.note(f"from the board: {done}")
        return done

    async def _carry_out(self, client: PikaClient, name: str, arguments: Mapping[str, Any]) -> str:
        match name:
            case "pause":
                client.pause_submitting()
                self.is_paused = True
                return "paused; nothing more is sent, and what is in flight is followed until you resume"
            case "resume":
                client.resume_submitting()
                self.is_paused = False
                return "resumed; what is planned is sent again"
            case "room":
                jobs: Any = arguments.get("jobs")
                client.set_max_in_flight(jobs)
                self._room = jobs
                return f"at most {jobs} in flight from now on, in this run"
            case "cancel":
                self.is_canceled = True
                count = await client.cancel_planned()
                jobs_text = "1 planned job" if count == 1 else f"{count} planned jobs"
                return f"{jobs_text} canceled; not charged, and left out by resume"
            case _:
                job = await _resolve(client, arguments)
        if job.task_id is not None:
            task = asyncio.get_running_loop().create_task(_follow(client, job.key), name="pika_async resolved job")
            self._following.add(task)
            task.add_done_callback(self._following.discard)
            return f"job {job.key} was accepted as task {job.task_id}; it is followed"
        return f"job {job.key} was given up" if job.is_final else f"job {job.key} was not charged; it is sent again"


async def _follow(client: PikaClient, key: str) -> None:
    """Poll a job until it is finished, or the client is closed: its batch asks for it only at its end."""
    with contextlib.suppress(PikaError):
        await client.wait(key)


@asynccontextmanager
async def controlling(control: BatchControl | None, client: BatchClient) -> AsyncIterator[None]:
    """Let `control`, if there is one, control the open `client` while the body runs."""
    if control is None or not isinstance(client, PikaClient):
        yield
        return
    with control.over(client):
        yield


async def _resolve(client: PikaClient, arguments: Mapping[str, Any]) -> Job:
    key, charged, abandon = arguments.get("key"), arguments.get("charged"), arguments.get("abandon", False)
    if not isinstance(key, str):
        raise InvalidRequest(field="key", value=key, reason="must be the key of a job in doubt")
    for field, value in (("charged", charged), ("abandon", abandon)):
        if not (value is None or isinstance(value, bool)):
            raise InvalidRequest(field=field, value=value, reason="must be true or false")
    return await client.resolve(key, task_id=arguments.get("task_id"), charged=charged, abandon=bool(abandon))
