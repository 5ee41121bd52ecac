"""`doctor`: compare a provider's actual replies with its documentation. Costs nothing without `--spend`."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
from yarl import URL

from pika_async._http.proxies import environment_proxy
from pika_async._http.transport import AiohttpTransport, Transport
from pika_async._planning.actions import ActiveJob
from pika_async._planning.money import money_text
from pika_async._runtime.free_requests import FreeRequests
from pika_async._runtime.results import route_refusal
from pika_async.cli.doctor_options import DoctorOptions
from pika_async.cli.documented_replies import compare, documented_reply
from pika_async.cli.exits import ExitCode, UsageError, error_text
from pika_async.cli.options import account_fault, is_of_account
from pika_async.cli.recording_transport import RecordedExchange, RecordingTransport, save_samples, to_sample
from pika_async.cli.terminal import Terminal, linked, plain
from pika_async.cli.words import counted
from pika_async.client import PikaClient
from pika_async.errors import AccountStopped, ConfigurationError, PikaError, strip_control
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest, TaskState
from pika_async.polling import AdaptivePolling
from pika_async.providers import Provider
from pika_async.providers._verdicts import PollVerdict, classify_poll
from pika_async.providers._wire import DecodeError, HttpRequest, HttpResponse, TransportFailure

__all__ = ["Doctor", "Finding", "diagnose", "diagnose_all"]

_CONNECT_TIMEOUT_S: Final = 15.0
#: Settings that are the same for all providers; a wrong one ends the command.
COMMON_SETTINGS: Final = frozenset({"proxy", "deadline", "expected_seconds"})
#: What stands before a finding, readable without colour.
MARKS: Final = {
    True: plain("ok         ", "green"), False: plain("differs    ", "bold red"), None: plain("not tried  ", "yellow"),
}  # fmt: skip
_REQUEST: Final = GenerationRequest("a paper boat on a calm lake", key="doctor")


@attrs.frozen
class Finding:
    """Result of one check."""

    subject: str
    #: None if the check was not tried.
    ok: bool | None
    detail: str


@attrs.define
class Doctor:
    """Checks of one provider at one base URL.

    :param report: called with every finding.
    """

    provider: Provider
    base_url: str
    transport: RecordingTransport
    report: Callable[[Finding], None]
    findings: list[Finding] = attrs.field(factory=list, init=False)
    samples: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)

    def record(self, subject: str, ok: bool | None, detail: str) -> None:
        """Record a finding and report it."""
        finding = Finding(subject, ok, strip_control(detail))
        self.findings.append(finding)
        self.report(finding)

    @property
    def code(self) -> ExitCode:
        """Exit code of the command."""
        return ExitCode.OK if all(finding.ok is not False for finding in self.findings) else ExitCode.INCOMPLETE

    # --- connection -------------------------------------------------------------------------------------------------

    async def check_dns(self) -> bool:
        """Check that the host name resolves; return whether it does."""
        url = URL(self.base_url)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                records = await asyncio.get_running_loop().getaddrinfo(url.host, url.port)
        except (OSError, TimeoutError, UnicodeError) as error:
            self.record("DNS", False, f"{url.host} does not resolve: {error}")
            return False
        addresses = sorted({str(entry[4][0]) for entry in records})
        self.record("DNS", True, f"{url.host} resolves to {', '.join(addresses)}")
        return True

    async def check_tls(self) -> None:
        """Check the TLS version and the expiry of the certificate, if the base URL is https."""
        url = URL(self.base_url)
        if url.scheme != "https":
            self.record("TLS", True, "not used: the address is http")
            return
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(url.host, url.port, ssl=ssl.create_default_context())
        except (OSError, TimeoutError) as error:
            self.record("TLS", False, f"no connection: {error}")
            return
        try:
            tls = writer.get_extra_info("ssl_object")
            until = ssl.cert_time_to_seconds(str(tls.getpeercert()["notAfter"]))
            days = (until - datetime.now(UTC).timestamp()) / 86400
            self.record("TLS", days > 0, f"{tls.version()}, the certificate expires in {counted(round(days), 'day')}")
        finally:
            writer.close()

    async def check_route(self, options: DoctorOptions) -> None:
        """Check that results could be fetched from this machine, as far as that can be known before there is one."""
        reason = await route_refusal(self.base_url, allow=options.allow_results, proxy=options.proxy)
        if reason is not None:
            self.record("results", False, reason)

    # --- free -------------------------------------------------------------------------------------------------------

    async def check_unknown_task(self) -> None:
        """Poll an invented task id, which costs nothing.

        :raises AccountStopped: if the key is refused.
        """
        task_id = str(uuid.uuid4())
        await self._send(self.provider.encode_poll(task_id, self.base_url))
        exchange = self.transport.exchanges[-1]
        self._add_sample(exchange, "error-unknown-task", "error")
        response = exchange.response
        if isinstance(response, TransportFailure):
            self.record("unknown task", False, f"no response: {response.detail}")
            return
        detail = f"HTTP {response.status}: {response.excerpt()}"
        if classify_poll(response, None) is PollVerdict.STOP:
            raise AccountStopped(provider=self.provider.name, reason=response.excerpt(), http_status=response.status)
        self.record("unknown task", self._reports_missing(exchange, task_id), detail)

    async def check_balance(self) -> None:
        """Ask for the balance of the account, which costs nothing, where the provider documents how."""
        if self.provider.dialect.balance is None:
            return
        balance = await FreeRequests(self.provider, self.base_url, self._send).balance()
        response = self.transport.exchanges[-1].response
        if balance is not None:
            self.record("balance", True, f"{money_text(balance)} US dollars")
        elif isinstance(response, TransportFailure):
            self.record("balance", False, f"no response: {response.detail}")
        else:
            self.record("balance", False, f"HTTP {response.status}: {response.excerpt()}")

    async def _send(self, request: HttpRequest, _: ActiveJob | None = None) -> HttpResponse | TransportFailure:
        await self.transport.open()
        try:
            return await self.transport.send(request)
        finally:
            await self.transport.close()

    def _reports_missing(self, exchange: RecordedExchange, task_id: str) -> bool:
        """Return whether the response is a documented "no such task": code `task_not_exist`, any HTTP status.

        A dialect that reads its own errors means it by HTTP 404.
        """
        if isinstance(exchange.response, TransportFailure):
            return False
        if self.provider.dialect.failure is not None:
            return classify_poll(exchange.response, None) is PollVerdict.MISSING
        try:
            return self.provider.decode_snapshot(exchange.response, task_id).state is TaskState.MISSING
        except DecodeError:
            return False

    # --- one generation ---------------------------------------------------------------------------------------------

    async def check_generation(self, client: PikaClient) -> None:
        """Pay for one generation, wait for it, and compare every reply field by field.

        :raises AccountStopped: if the key or the balance is refused.
        """
        first = len(self.transport.exchanges)
        async with client:
            try:
                job = await client.submit(_REQUEST)
                self.record("submission", True, f"accepted as task {job.task_id}")
                job = await client.wait(job)
                self._record_outcome(job)
                await self._check_download(client, job)
            except AccountStopped:
                raise
            except PikaError as error:
                self.record("generation", False, error.message)
            finally:
                self._compare(self.transport.exchanges[first:])

    def _record_outcome(self, job: Job) -> None:
        duration = (job.settled_at - job.submitted_at).total_seconds() if job.settled_at and job.submitted_at else None
        took = "" if duration is None else f" after {duration:.0f} s and {counted(job.polls, 'poll')}"
        why = "" if job.error is None else f": {job.error.message}"
        self.record("generation", job.status is JobStatus.SUCCEEDED, f"{job.status.label}{took}{why}")

    async def _check_download(self, client: PikaClient, job: Job) -> None:
        if job.status is not JobStatus.SUCCEEDED:
            return
        with tempfile.TemporaryDirectory() as folder:
            file = await client.download(job, Path(folder) / "doctor.mp4")
            self.record("result", True, f"a complete {file.suffix[1:].upper()} of {file.stat().st_size:,} bytes")

    def _compare(self, exchanges: list[RecordedExchange]) -> None:
        """Compare the replies of one generation; add a sample of the create and of the first feed with each state."""
        reported: set[str] = set()
        sampled: set[str] = set()
        for exchange in exchanges:
            kind = "create" if exchange.request.paid else "feed"
            differences = list(self._differences(exchange, kind))
            for difference in differences:
                if difference not in reported:
                    reported.add(difference)
                    self.record(f"{kind} reply", False, difference)
            word = self._state_word(exchange) if kind == "feed" else ""
            if word not in sampled:
                sampled.add(word)
                self._add_sample(exchange, f"live-{kind}" + (f"-{word}" if word else ""), kind)
        reply = documented_reply(self.provider, "feed")
        if reply is not None and not reported and exchanges:
            self.record("fields", True, f"{counted(len(exchanges), 'reply', 'replies')}, every field as documented")

    def _differences(self, exchange: RecordedExchange, kind: str) -> Iterator[str]:
        reply = documented_reply(self.provider, kind)
        response = exchange.response
        if isinstance(response, TransportFailure):
            yield f"no response: {response.detail}"
        elif response.status >= 300:
            yield f"HTTP {response.status}: {response.excerpt()}"
        elif reply is not None:
            for difference in compare(reply, exchange.body, succeeded=self._state_word(exchange) == "succeeded"):
                yield str(difference)

    def _state_word(self, exchange: RecordedExchange) -> str:
        if isinstance(exchange.response, TransportFailure):
            return "none"
        try:
            return self.provider.decode_snapshot(exchange.response, "").state.value
        except DecodeError:
            return "unreadable"

    def _add_sample(self, exchange: RecordedExchange, name: str, kind: str) -> None:
        source = f"doctor: reply of {self.provider.title} on {datetime.now(UTC):%Y-%m-%d}"
        wanted = _REQUEST if kind == "create" else None
        self.samples[name] = to_sample(self.provider, exchange, name=name, kind=kind, source=source, generation=wanted)


async def diagnose(options: DoctorOptions, terminal: Terminal, transport: Transport | None = None) -> Doctor:
    """Run every check; return the doctor with its findings and samples.

    :param transport: replaces the real transport; default None.
    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises AccountStopped: if the provider refuses the account.
    :raises UsageError: if a sample cannot be saved.
    """
    # Reads files and imports plugins: not in the event loop.
    doctor = await asyncio.to_thread(_create_doctor, options, terminal, transport)
    try:
        if not _is_direct(options, doctor.base_url):
            doctor.record("DNS and TLS", None, "a proxy resolves the name")
        elif await doctor.check_dns():
            await doctor.check_tls()
        else:
            doctor.record("TLS", None, "the name does not resolve")
        await doctor.check_route(options)
        await doctor.check_unknown_task()
        await doctor.check_balance()
        if options.spend:
            polling = AdaptivePolling(expected_seconds=options.expected_seconds)
            client = PikaClient(
                [options.account()], transport=doctor.transport, polling=polling,
                allow_results=options.allow_results, proxy=options.proxy, deadline=options.deadline,
            )  # fmt: skip
            await doctor.check_generation(client)
        else:
            doctor.record("generation", None, "it costs; give --spend")
    finally:
        if options.save_to is not None:
            _save(options.save_to, doctor, terminal)
    return doctor


async def diagnose_all(
    options: Sequence[DoctorOptions], terminal: Terminal, transport: Transport | None = None
) -> ExitCode:
    """Run every check of several accounts, one after the other; return the worst exit code.

    An account that cannot be checked, or that its provider refuses, does not keep the others from being checked.

    :param transport: replaces the real transport; default None.
    """
    codes = [ExitCode.OK]
    for one in options:
        terminal.show(plain(one.name, "bold"))
        try:
            codes.append((await diagnose(one, terminal, transport)).code)
        except ConfigurationError as error:
            if error.setting in COMMON_SETTINGS:
                raise
            text = account_fault(error) if one.listed and is_of_account(error) else error_text(error)
            _show(Finding("configuration", None, strip_control(text)), terminal)
            codes.append(ExitCode.USAGE)
        except AccountStopped as error:
            _show(Finding("account", False, error.message), terminal)
            codes.append(ExitCode.ACCOUNT_STOPPED)
    return max(codes)


def _create_doctor(options: DoctorOptions, terminal: Terminal, transport: Transport | None) -> Doctor:
    account = options.account()
    provider = account.provider
    credential = account.read_credential()
    probe = PikaClient(
        [account], proxy=options.proxy, deadline=options.deadline,
        polling=AdaptivePolling(expected_seconds=options.expected_seconds),
    )  # fmt: skip
    inner = transport or AiohttpTransport(
        probe.base_url, credential, authorization=provider.authorization,
        origins=provider.trusted_origins(probe.base_url), proxy=options.proxy,
    )  # fmt: skip
    if options.save_to is not None:
        _check_folder(options.save_to)
    doctor = Doctor(provider, probe.base_url, RecordingTransport(inner), lambda finding: _show(finding, terminal))
    variable = f"the variable {account.api_key_env or provider.api_key_env}"
    key_from = f"the file {account.api_key_file}" if account.api_key_file else variable
    doctor.record("configuration", True, f"{account.title} at {probe.base_url}, key from {key_from}")
    return doctor


def _is_direct(options: DoctorOptions, base_url: str) -> bool:
    """Return whether no proxy is in use, neither an option nor the environment's; a proxy resolves names itself."""
    return options.proxy is None and environment_proxy(base_url) is None


def _check_folder(folder: Path) -> None:
    """Check that samples can be written, before paying for them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--save: {folder} must be empty, nothing is overwritten; choose another folder")
    except OSError as error:
        raise UsageError(f"--save: {folder} cannot be used: {error.strerror}") from None


def _show(finding: Finding, terminal: Terminal) -> None:
    terminal.marked(MARKS[finding.ok], f"{finding.subject}: {finding.detail}")


def _save(folder: Path, doctor: Doctor, terminal: Terminal) -> None:
    try:
        save_samples(folder, doctor.samples)
    except OSError as error:
        path = os.fspath(error.filename or folder)
        raise UsageError(f"--save: {path} cannot be written: {error.strerror}") from None
    saved = counted(len(doctor.samples), "reply", "replies")
    note = plain(", without keys and signatures; review them before sharing")
    terminal.note(linked(folder, f"{saved} saved in ") + note)
