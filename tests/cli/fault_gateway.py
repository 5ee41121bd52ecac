"""Gateway that answers each job by its prompt, in a thread of its own, and a runner of commands against it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pika_async.__main__ import main
from pika_async.emulator import Emulator, Scenario
from tests.cli.command_line import ENV, KEY, CommandResult
from tests.fakes.raw_server import TASK, Act, RawServer, ReceivedRequest, answer, receipt

T = TypeVar("T")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class FaultGateway(RawServer):
    """Server that answers each submission with the acts of its own prompt in turn, and then accepts it."""

    def __init__(self, provider: str, **options: Any) -> None:
        super().__init__(provider, **options)
        self.acts_by_prompt: dict[str, deque[Act]] = {}
        #: Number of submissions that arrived whole, by prompt.
        self.posts: Counter[str] = Counter()
        #: Number of submissions that were accepted without an act, by prompt.
        self.accepted: Counter[str] = Counter()

    def answer_with(self, prompt: str, make: Callable[[str], Act]) -> None:
        """Answer the first submission of `prompt` with the act that `make` returns; a receipt in it has its own id."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(receipt, "__defaults__", (f"{TASK}-{len(self.acts_by_prompt)}",))
            self.acts_by_prompt[prompt] = deque([make(self.provider)])

    def _next(self, request: ReceivedRequest) -> Act | None:
        if not request.path.endswith("/generate"):
            return super()._next(request)
        prompt = prompt_of(request)
        self.posts[prompt] += 1
        if self.acts_by_prompt.get(prompt):
            return self.acts_by_prompt[prompt].popleft()
        self.accepted[prompt] += 1
        return Act(answer(200, receipt(self.provider, f"accepted-{len(self.received)}")))


def prompt_of(request: ReceivedRequest) -> str:
    """Return the prompt of a submission in either dialect."""
    body = json.loads(request.body)
    prompt: str = body["prompt"] if "prompt" in body else body["promptText"]
    return prompt


class ServerThread:
    """Event loop in a thread of its own; servers on it can be started and stopped from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateways", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _end(self, server: RawServer) -> None:
        self.run(server.__aexit__())

    @contextlib.contextmanager
    def serving(self, *servers: RawServer) -> Iterator[None]:
        """Serve `servers` while the block runs."""
        with contextlib.ExitStack() as stack:
            for server in servers:
                self.run(server.__aenter__())
                stack.callback(self._end, server)
            yield


class _WatchedStream(io.StringIO):
    """Stream that calls `on` once, in a thread of its own, as soon as `word` has been written."""

    def __init__(self, word: str, on: Callable[[], None]) -> None:
        super().__init__()
        self._word = word
        # The writer may be an event loop, which must not wait.
        self._thread = threading.Thread(target=on, name="on-word")

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._thread.ident is None and self._word in self.getvalue():
            self._thread.start()
        return written

    def join(self) -> None:
        """Wait until `on` has returned, if it was called."""
        if self._thread.ident is not None:
            self._thread.join()


def run_command(
    folder: Path, *argv: str, word: str = "", on: Callable[[], None] | None = None, key: str | None = KEY
) -> CommandResult:
    """Run one command in `folder`, in this process, with the shortest delays.

    :param word: text on standard error at which `on` is called.
    :param on: called once when `word` has been written; default None.
    :param key: value of every provider's key variable; None unsets them.
    """
    out = io.StringIO()
    err = io.StringIO() if on is None else _WatchedStream(word, on)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("random.random", lambda: 0.0)
        patch.setitem(sys.modules, "uvloop", None)  # always asyncio's own loop
        for variable in ENV.values():
            patch.delenv(variable, raising=False)
            if key is not None:
                patch.setenv(variable, key)
        for variable in PROXIES:
            patch.delenv(variable, raising=False)
            patch.delenv(variable.upper(), raising=False)
        code = main(list(argv))
    if isinstance(err, _WatchedStream):
        err.join()
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return CommandResult(code, out.getvalue(), err.getvalue())


def results_by_prompt(out: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of `results.jsonl` by prompt, asserting that each prompt has one line."""
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    by_prompt = {record["prompt"]: record for record in records}
    assert len(by_prompt) == len(records)
    return by_prompt


@contextlib.contextmanager
def serving_emulator(rules: list[dict[str, Any]], **options: Any) -> Iterator[Emulator]:
    """Serve an emulator with fault rules, whose tasks take a moment."""
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "constant:0.02", "video_seconds": 1.0}
    with Emulator(**{**settings, **options}, scenario=Scenario.of(rules)).in_thread() as emulator:
        yield emulator
