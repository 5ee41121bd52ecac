"""The commands and their options: parses, hands over, and turns every ending into an exit code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from pika_async import __version__
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import ExitCode, InputErrors, Interrupted, UsageError, error_text, exit_code_for
from pika_async.cli.folder_commands import batch, resolve, resume, status
from pika_async.cli.generate import generate as generate_one
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import (
    CommonOptions,
    JsonFlag,
    ProviderOptions,
    RequestOptions,
    WholeNumber,
    build_request,
    create_client,
)
from pika_async.cli.providers import show_providers
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.errors import PikaError, strip_control

__all__ = ["app", "run"]

app = App(
    name="pika-async",
    help="Pika video generation through four gateways: one video, or hundreds at once.",
    version=__version__,
    help_format="markdown",
)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    terminal = Terminal()
    try:
        command, bound, _ = app.parse_args(list(argv), exit_on_error=False, print_error=False)
        code = command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        terminal.error(re.sub(r"\s+", " ", strip_control(str(error))).strip() + " (see --help)")
        return ExitCode.USAGE
    except InputErrors as error:
        terminal.note(error)
        return exit_code_for(error)
    except (UsageError, PikaError) as error:
        terminal.error(error_text(error))
        return exit_code_for(error)
    except Interrupted as error:
        terminal.note(error)
        return exit_code_for(error)
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return ExitCode.INTERRUPTED
    except OSError as error:  # of the help or a table: whatever a command does says itself what failed
        terminal.error(f"standard output cannot be written: {error.strerror}")
        return ExitCode.INCOMPLETE
    return int(code or ExitCode.OK)


@app.command
def generate(
    prompt: str,
    /,
    *,
    account: ProviderOptions,
    fields: RequestOptions | None = None,
    out: Path | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    json: JsonFlag = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Generate one video; print its file (with --out) or its address.

    Parameters
    ----------
    prompt
        What the video shows.
    out
        Save the video here; an existing file is never overwritten.
    deadline
        Seconds from acceptance to the end; 1800 unless given.
    expected_seconds
        How long a generation is thought to take.
    json
        Print the job as one line of JSON.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        request = build_request(prompt, fields)
        client = create_client(account, options=BatchOptions(deadline=deadline, expected_seconds=expected_seconds))
        return run_in_loop(generate_one(client, request, out, terminal, as_json=json))


for command in (batch, resume, status, resolve):
    app.command(command)


@app.command
def providers(*, json: JsonFlag = False, common: CommonOptions = CommonOptions()) -> int:  # noqa: B008 - frozen
    """Show what each provider can do, and how its wire spells it.

    Parameters
    ----------
    json
        As JSON.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        show_providers(terminal, as_json=json)
    return ExitCode.OK


@app.command
def demo(
    *,
    out: Path = Path("pika-demo"),
    prompts: WholeNumber = 200,
    seed: WholeNumber = 0,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Run 200 prompts through all four providers' wires on an emulator in this process: no key, no network.

    Parameters
    ----------
    out
        The folder for videos/, results.jsonl and index.html; an earlier demo there is replaced.
    prompts
        How many prompts, dealt out to the four.
    seed
        Of the prompts and of how long each takes.
    """
    from pika_async.cli.demo import demo as run_demo  # noqa: PLC0415 - the emulator is loaded where it is used

    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        return run_demo(out, prompts, seed, terminal)


@app.command
def emulate(
    *,
    host: str = "127.0.0.1",
    port: WholeNumber = 8765,
    durations: str = "lognormal:60,0.5",
    time_scale: float = 1.0,
    in_flight: WholeNumber | None = None,
    seed: WholeNumber = 0,
    scenario: Path | None = None,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Serve the emulator that stands in for all four gateways, until Ctrl-C.

    Parameters
    ----------
    host
        A loopback address.
    port
        0 takes any free one.
    durations
        How long generations take, such as constant:60, lognormal:60,0.5 (median, sigma) or exponential:60.
    time_scale
        Every duration is multiplied by this.
    in_flight
        How many unsettled generations each account may have; more are answered 429.
    seed
        Of everything that is drawn.
    scenario
        A JSON file of faults to inject.
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
    account: ProviderOptions,
    spend: Annotated[bool, Parameter(negative=())] = False,
    save: Path | None = None,
    deadline: float | None = None,
    expected_seconds: float | None = None,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Compare a provider's wire of today with the documented one. Free, unless you say --spend.

    Exit code 0: all is as documented; 1: something differs; 2: the configuration is wrong; 3: the account is stopped.

    Parameters
    ----------
    spend
        Pay for one generation and follow it to its end.
    save
        A folder for every kind of answer, without keys, as sample files that the tests can read.
    deadline
        Seconds that the generation may take; 1800 unless given.
    expected_seconds
        How long it is thought to take.
    """
    from pika_async.cli.doctor import DoctorOptions, diagnose  # noqa: PLC0415

    terminal = Terminal()
    patient = DoctorOptions(
        provider=account.provider, base_url=account.base_url, api_key_file=account.api_key_file, proxy=account.proxy,
        spend=spend, save_to=save, deadline=deadline, expected_seconds=expected_seconds,
    )  # fmt: skip
    with logging_to(terminal, common.log_level):
        found = run_in_loop(interruptible(diagnose(patient, terminal), lambda: terminal.note("stopping")))
    return found.code
