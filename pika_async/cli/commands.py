"""Commands of `pika-async` and their options. Parses, delegates, and turns every outcome into an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter

from pika_async.cli.accounts import AccountFileOption, OneJobAccountOptions, choose_accounts, read_accounts
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.board import board, with_board_port
from pika_async.cli.configuration import Configuration, configure, describe_mistake, name_places
from pika_async.cli.estimate import estimate
from pika_async.cli.exits import ExitCode, InputErrors, Interrupted, UsageError, error_text, exit_code_for
from pika_async.cli.export import export
from pika_async.cli.fetching import fetch
from pika_async.cli.folder_commands import batch, resume, retry, status
from pika_async.cli.generate import DEFAULT_JOURNAL, OneVideo, remembered
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import (
    CommonOptions,
    Integer,
    JsonFlag,
    Port,
    PositiveInteger,
    ProviderOptions,
    RequestOptions,
    UserPath,
    build_request,
    create_client,
)
from pika_async.cli.overview import finish_app, new_app
from pika_async.cli.preview import Offer, SpendOptions, confirm
from pika_async.cli.providers import show_effects, show_providers
from pika_async.cli.prune import prune
from pika_async.cli.resolving import resolve
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.cli.worker import worker, workers
from pika_async.errors import ConfigurationError, PikaError
from pika_async.polling.adaptive import EXPECTED_SECONDS

__all__ = ["app", "run"]

app = new_app()


@cache
def _configuration() -> Configuration:
    """Read the options of every command; once, because it takes a tenth of a second."""
    return Configuration.of(app)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code.

    :param argv: arguments without the program name.
    """
    terminal = Terminal()
    places: dict[str, str] = {}
    app.config = (partial(configure, app, places, configuration=_configuration),)
    try:
        command, bound, _ = app.parse_args(with_board_port(argv), exit_on_error=False, print_error=False)
        code = command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        terminal.error(describe_mistake(error))
        return ExitCode.USAGE
    except InputErrors as error:
        terminal.note(name_places(str(error), places))
        return exit_code_for(error)
    except (UsageError, PikaError) as error:
        setting = error.setting if isinstance(error, ConfigurationError) else ""
        terminal.error(name_places(error_text(error), places, setting))
        return exit_code_for(error)
    except Interrupted as error:
        terminal.note(error)
        return exit_code_for(error)
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:  # printing a help text or a table failed; the commands handle their own errors
        terminal.error(f"standard output cannot be written: {error.strerror}")
        return ExitCode.INCOMPLETE
    return int(code or ExitCode.OK)


@app.command
def generate(
    prompt: str,
    /,
    *,
    account: ProviderOptions = ProviderOptions(),  # noqa: B008 - frozen
    several: OneJobAccountOptions = OneJobAccountOptions(),  # noqa: B008 - frozen
    fields: RequestOptions | None = None,
    out: UserPath | None = None,
    journal: UserPath | None = None,
    key: str | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    grace: float | None = None,
    spend: SpendOptions = SpendOptions(),  # noqa: B008 - frozen
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Generate one video and print its URL, or its file with --out.

    Example: `pika-async generate "a cat in the rain" --provider cometapi --out cat.mp4`

    :param prompt: What the video shows.
    :param out: File to save the video to; an existing file is never overwritten.
    :param journal: File that remembers the job: the same command again is not charged, but waits for the same video.
    :param key: Name of the job in the journal; another key for the same prompt pays for another video. Without
        --journal it is kept in pika-async.db here. [default: made from the prompt and its options]
    :param deadline: Seconds from acceptance to the end. [default: 1800]
    :param expected_seconds: Expected duration of a generation in seconds. [default: 60]
    :param grace: Seconds that Ctrl-C or SIGTERM waits for the receipts of submissions under way; those without one are
        then in doubt. [default: 6]
    :param json: Print the job as one line of JSON.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        request = build_request(prompt, fields)
        remembers = journal is not None or key is not None
        if journal is not None and journal.is_dir():
            raise UsageError(f"--journal: {journal} must be a file; give one in it; nothing was sent")
        options = BatchOptions(deadline=deadline, expected_seconds=expected_seconds, grace=grace)
        options = choose_accounts(
            spend.applied_to(options), account, several.accounts, routing=several.routing, price=spend.price
        )
        file = (journal or DEFAULT_JOURNAL) if remembers else None
        client = create_client(account, read_accounts(options), options=options, journal=file)
        one = OneVideo(
            client=client, request=remembered(request, key) if remembers else request, out=out, account=account,
            terminal=terminal, remembers=remembers, file=options.accounts,
            expected_seconds=expected_seconds or EXPECTED_SECONDS,
        )  # fmt: skip
        estimated = run_in_loop(one.check_before_cost(quotes=spend.asks_prices))
        offer = Offer(client=client, estimate=estimated, places=["the prompt"], candidates=one.candidates)
        if (code := confirm([offer], terminal, spend, as_json=json)) is not None:
            return code
        return run_in_loop(one.run(as_json=json))


for command in (batch, estimate, resume, retry, fetch, status, board, resolve, export, worker, workers, prune):
    app.command(command)


@app.command
def providers(name: str | None = None, /, *, json: JsonFlag = False, common: CommonOptions = CommonOptions()) -> int:  # noqa: B008 - frozen
    """Show what each provider can do, and whether its key is set; of one, how it spells each field.

    Example: `pika-async providers cometapi`

    :param name: Show this provider alone, with its spelling and limits.
    :param json: Print JSON.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        show_providers(terminal, name, as_json=json)
    return ExitCode.OK


@app.command
def effects(
    *,
    provider: str | None = None,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Show the effects, and which provider documents each.

    Example: `pika-async effects --provider native`

    :param provider: Show the effects of this provider alone.
    :param json: Print JSON: the names by provider.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        show_effects(terminal, provider, as_json=json)
    return ExitCode.OK


@app.command
def demo(
    *,
    out: UserPath = Path("pika-demo"),
    prompts: PositiveInteger = 200,
    seed: Integer = 0,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Run 200 prompts through all four providers on a local emulator; needs no key and no network.

    Example: `pika-async demo --prompts 40`

    :param out: Folder for videos/, results.jsonl and index.html; an earlier demo there is replaced.
    :param prompts: Number of prompts, dealt to the four providers in turn.
    :param seed: Seed of the prompts and of the durations.
    """
    from pika_async.cli.demo import demo as run_demo  # noqa: PLC0415 - the emulator is loaded where it is used

    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        return run_demo(out, prompts, seed, terminal)


@app.command
def emulate(
    *,
    host: str = "127.0.0.1",
    port: Port = 8765,
    durations: str = "lognormal:60,0.5",
    time_scale: float = 1.0,
    in_flight: Integer | None = None,
    seed: Integer = 0,
    scenario: UserPath | None = None,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Serve an emulator of all four gateways until Ctrl-C.

    Example: `pika-async emulate --time-scale 0.1`

    :param host: Loopback address to listen on.
    :param port: Port to listen on; 0 takes any free one.
    :param durations: Distribution of the durations in seconds: constant:60, lognormal:60,0.5 (median, sigma) or
        exponential:60.
    :param time_scale: Factor for every duration.
    :param in_flight: Most unfinished generations per account; more are answered 429. [default: no limit]
    :param seed: Seed of every random choice.
    :param scenario: JSON file of faults to inject.
    """
    from pika_async.cli.emulate import emulate as serve  # noqa: PLC0415
    from pika_async.cli.emulate import make_emulator  # noqa: PLC0415

    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        emulator = make_emulator(
            host=host, port=port, durations=durations, time_scale=time_scale, in_flight=in_flight, seed=seed,
            scenario=scenario,
        )  # fmt: skip
        return run_in_loop(serve(emulator, terminal))


@app.command
def doctor(
    *,
    account: ProviderOptions = ProviderOptions(),  # noqa: B008 - frozen
    several: AccountFileOption = AccountFileOption(),  # noqa: B008 - frozen
    spend: Annotated[bool, Parameter(negative=())] = False,
    save: UserPath | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Compare a provider's actual replies with its documentation; free unless --spend is given.

    Example: `pika-async doctor --provider cometapi`

    Without --provider, every provider whose key is set is checked; with --accounts each account, with its own key and
    base URL. Exit codes, the worst of all: 0 all as documented, 1 something differs, 2 wrong configuration, 3 the
    account is stopped.

    :param spend: Pay for one generation, of several accounts for one each, and follow it to its end.
    :param save: New or empty folder for one sample of every kind of reply, without keys.
    :param deadline: Seconds from acceptance to the end of the generation. [default: 1800]
    :param expected_seconds: Expected duration of the generation in seconds. [default: 60]
    """
    from pika_async.cli.doctor import diagnose, diagnose_all  # noqa: PLC0415
    from pika_async.cli.doctor_options import DoctorOptions, options_of_each  # noqa: PLC0415

    terminal = Terminal()
    given = DoctorOptions(
        base_url=account.base_url, api_key_file=account.api_key_file, proxy=account.proxy, save_to=save, spend=spend,
        allow_results=account.allow_results, deadline=deadline, expected_seconds=expected_seconds,
    )  # fmt: skip
    options = options_of_each(given, account, several)
    with logging_to(terminal, common.log_level):
        if len(options) > 1 or options[0].listed is not None:
            checking = diagnose_all(options, terminal)
            return run_in_loop(interruptible(checking, lambda: terminal.note("stopping")))
        examined = run_in_loop(interruptible(diagnose(options[0], terminal), lambda: terminal.note("stopping")))
    return examined.code


finish_app(app)
