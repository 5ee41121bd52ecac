"""What every test may use: Hypothesis' profiles, one async backend, and an emulator."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs
import pytest
from blockbuster import BlockBuster
from hypothesis import Phase, settings

from pika_async import providers
from pika_async._journal.reader import Reader
from pika_async.emulator import EMULATED_PROVIDERS
from tests.engines.postgres import PostgresServer, find_program, new_database
from tests.fakes import object_stores
from tests.fakes.process_state import process_state
from tests.fakes.requirements import require_module, require_program
from tests.fakes.stepped_emulator import SteppedEmulator
from tests.once import is_once

# The time that one example takes says nothing on a busy machine; pytest-timeout bounds the whole test. A failure prints
# how to reproduce its example (the blob) and the whole run (the seed, below).
settings.register_profile("suite", deadline=None, print_blob=True)
# The same examples in every run: `python -m tests.mutants` compares runs with each other, and reads no example.
settings.register_profile(
    "repeatable", settings.get_profile("suite"), derandomize=True, phases=(Phase.explicit, Phase.generate)
)
# `nox -s explore` runs new ones.
settings.register_profile("explore", settings.get_profile("suite"), max_examples=1000)
settings.load_profile("suite")

TESTS = Path(__file__).parent
#: Modules with the name that `everywhere` replaces at its origin alone: imported meanwhile, they would keep its value.
EXPECTING = (
    "_planning.router", "_runtime.estimation", "cli.commands", "cli.forecast", "cli.generate", "cli.runner",
    "report.board_source",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Use one seed for all workers and all runs, unless `--hypothesis-seed` is given: what lands is what was tested.

    A shell starts what it runs in the background with SIGINT ignored, which the processes that tests interrupt would inherit.
    """
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = "0"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are run once."""
    for item in items:
        if item.path.is_relative_to(TESTS) and is_once(PurePosixPath(item.path.relative_to(TESTS))):
            item.add_marker("once")


def pytest_collection_finish() -> None:
    """Exempt what the collection has made, some million objects, from the collections of garbage in the tests."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed after a run that failed."""
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"the same examples again: --hypothesis-seed={config.option.hypothesis_seed}")


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which the package blocks a running event loop: it sleeps, waits for a socket, reads or writes a file.

    Calls that only examine names (`os.stat`, `os.path.abspath`) take microseconds and stay allowed. The journal reads
    its database in the loop on purpose: a read by key takes about 20 us, less than handing it to a thread would.
    """
    guard = BlockBuster("pika_async", excluded_modules=["pika_async.emulator", "pika_async.cli", "pika_async.__main__"])
    for name, function in guard.functions.items():
        if name.startswith("os."):
            continue
        if name.startswith("sqlite3."):
            function.can_block_in("_journal/reader.py", set(vars(Reader)))
            function.can_block_in("_journal/schema.py", {"open_reader"})
        function.can_block_in("_journal/sqlite.py", {"flush"})  # documented as blocking; called from threads
        function.can_block_in("models/media.py", {"_read_file", "_saved"})  # documented: read where the request is made
        function.can_block_in("telemetry/__init__.py", {"create_telemetry"})  # imports the extra at the first opening
        function.can_block_in("tests/fakes/journals.py", {"_work"})  # stands in for the journal's thread
        function.activate()
    yield
    guard.deactivate()


@pytest.fixture(scope="session", autouse=True)
def no_configuration_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the options that a developer's own file and variables give from the commands under test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("no-configuration")))
        for name in [name for name in os.environ if name.startswith("PIKA_ASYNC_")]:
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Fail a test that leaves a handler, a variable or another working directory to the tests after it."""
    before = process_state()
    yield
    after = process_state()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == set()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def everywhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[SteppedEmulator]:
    """Every provider's address leads to an emulator, its key is in the environment, the folder is empty.

    A parameter is more options of the emulator.
    """
    options = {"durations": "constant:0.2", "video_seconds": 1} | getattr(request, "param", {})
    with SteppedEmulator(**options).in_thread() as running:
        for name in EMULATED_PROVIDERS:
            provider = providers.PROVIDERS[name]
            local = attrs.evolve(provider, base_url=running.base_url(name))
            monkeypatch.setitem(providers.PROVIDERS, name, local)
            monkeypatch.setenv(provider.api_key_env, running.api_key)
        monkeypatch.setenv("SECOND_GPTGE_API_KEY", running.api_key)  # of the accounts that the pages show
        # Nothing is known of these tasks at first, and a real one is thought to take a minute.
        for module in EXPECTING:
            importlib.import_module(f"pika_async.{module}")
        monkeypatch.setattr("pika_async.polling.adaptive.EXPECTED_SECONDS", 0.2)
        monkeypatch.setenv("PIKA_BASE_URL", running.base_url("native"))
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of moto, which runs until the last test of this worker."""
    require_module("moto.server")
    require_module("aiobotocore")
    with object_stores.moto() as url:
        yield url


@pytest.fixture
def store(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object_stores.StoreProxy]:
    """An empty store with one bucket, to which the environment leads; repetitions do not wait."""
    with object_stores.store_proxy(moto_url) as proxy:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in (object_stores.ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": proxy.url}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
        yield proxy


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server of this process; its databases are made by `new_database`."""
    if find_program("initdb") is None:
        require_program("initdb")
    server = PostgresServer.create()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cluster.db"
    return new_database(request.getfixturevalue("postgres"))
