"""Options from `pika-async.toml` and from `PIKA_ASYNC_*`, and the provider that may be left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.commands import app
from pika_async.cli.configuration import PREFIX, Configuration, config_files
from pika_async.cli.exits import UsageError
from pika_async.providers import PROVIDERS
from tests.cli.command_line import ENV, KEY, CommandLine, without_codes
from tests.fakes.stepped_emulator import SteppedEmulator

OPTIONS = Configuration.of(app)
#: An option that shows its value without sending anything: the price of one generation.
DRY_RUN = ("batch", "b.txt", "--dry-run")


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    for name in ENV.values():
        monkeypatch.delenv(name, raising=False)
    cli = CommandLine(tmp_path, capsys, monkeypatch)
    cli.write("b.txt", "a cat")
    for name in set(ENV.values()) - {"COMETAPI_API_KEY"}:
        monkeypatch.delenv(name)
    return cli


def user_file(text: str) -> None:
    path = config_files()[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --- what counts ------------------------------------------------------------------------------------------------------

#: Each source of `--price`, the one that counts least first: where it is given, and its text.
SOURCES = [
    ("user", "price = 1"),
    ("user", "price = 1\n[batch]\nprice = 2"),
    ("here", "price = 3"),
    ("here", "price = 3\n[batch]\nprice = 4"),
    ("PIKA_ASYNC_PRICE", "5"),
    ("PIKA_ASYNC_BATCH_PRICE", "6"),
    ("--price", "7"),
]


@pytest.mark.parametrize("count", range(1, len(SOURCES) + 1))
def test_the_nearest_source_counts(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Command line, variable of the command, variable, file here, user's file; a command's table before the rest."""
    more = []
    for place, text in SOURCES[:count]:
        if place == "user":
            user_file(text)
        elif place == "here":
            cli.write("pika-async.toml", text)
        elif place.startswith("--"):
            more = [place, text]
        else:
            monkeypatch.setenv(place, text)
    ran = cli(*DRY_RUN, *more)
    assert (ran.code, f"cost: {count}" in ran.out + ran.err) == (0, True), ran


def test_a_file_gives_switches_lists_and_numbers(cli: CommandLine, everywhere: SteppedEmulator) -> None:
    """A switch that is on without a file is off, several values are a list, and the command runs as if given them."""
    cli.write(
        "pika-async.toml",
        """
provider = "native"
expected-seconds = 0.2
seed = 7

[batch]
download = false
json = true
out = "elsewhere"
allow-results = ["http", "tunnel"]
""",
    )
    ran = cli("batch", "b.txt")
    assert (ran.code, [record["file"] for record in ran.records]) == (0, [None])
    assert (cli.folder / "elsewhere" / "results.jsonl").is_file()
    assert [charge.provider for charge in everywhere.ledger] == ["native"]


def test_an_option_of_other_commands_is_left_alone(cli: CommandLine) -> None:
    """An entry above all tables is for the commands that have the option."""
    cli.write("pika-async.toml", 'effect = "Melt"\n[demo]\nprompts = 4\n')
    assert cli("providers").code == 0
    assert cli(*DRY_RUN).code == 0


@pytest.mark.parametrize(
    "option", sorted({(command, name) for command, names in OPTIONS.options.items() for name in names})
)
def test_every_option_of_every_command_can_be_given(option: tuple[str, str], tmp_path: Path) -> None:
    """In a file, in the table of its command, and in a variable; no variable has two meanings."""
    command, name = option
    file = tmp_path / "pika-async.toml"
    file.write_text(f'{name} = "x"\n[{command}]\n{name} = "y"\n', encoding="utf-8")
    assert OPTIONS.from_file(file, command) == {name: (f"{file}: [{command}] {name}", "y")}
    variable = PREFIX + f"{command}-{name}".upper().replace("-", "_")
    assert OPTIONS.from_environment({variable: "z"}, command) == {name: (variable, "z")}
    others = {other for other in OPTIONS.options if other != command and name in OPTIONS.options[other]}
    assert all(OPTIONS.from_environment({variable: "z"}, other) == {} for other in others)
    assert variable not in {provider.api_key_env for provider in PROVIDERS.values()}


# --- what is refused --------------------------------------------------------------------------------------------------

MISTAKES = [
    ("max-charge = 3", "max-charge: must be an option of any command", "did you mean max-charges"),
    ("max_charges = 3", "max_charges: must be an option of any command", 'did you mean "max-charges"'),
    ("--price = 3", "--price: must be an option", 'did you mean "price"'),
    ("[batch]\nfailed = true", "[batch] failed: must be an option of batch", ""),
    ("[bach]\nout = 'x'", "[bach]: must be a command", "did you mean batch"),
    ("[batch]\nmax-charges = 'many'", '[batch] max-charges: "many" must be an integer', ""),
    ("max-charges = 1.5", 'max-charges: "1.5" must be an integer', ""),
    ("download = 'perhaps'", 'download: unable to convert "perhaps" into bool', ""),
    ("log-level = 'loud'", "log-level: ", "debug"),
    ("allow-results = ['http', 'ftp']", "allow-results: ", '"ftp"'),
    ("price = [1, 2]", "price: must be one value, not a list", ""),
    ("price = 2026-01-01", "price: '2026-01-01' must be a text, a number, true or false", ""),
    ("no-download = true", "no-download: must be written as download = false", ""),
    ("price = ", "is not valid TOML", ""),
    ("api-key = 'x'", "api-key: a key must not be in this file", "set COMETAPI_API_KEY"),
    ("[batch]\ntoken = 'x'", "[batch] token: a key must not be in this file", ""),
    (f"out = '{KEY}'", "out: a key or a password must not be in this file", ""),
    ("proxy = 'http://me:secret@proxy.example:8080'", "proxy: a key or a password must not be in this file", ""),
]  # fmt: skip


@pytest.mark.parametrize(["text", "sentence", "way_out"], MISTAKES)
@pytest.mark.parametrize("where", ["here", "user"])
def test_a_mistake_in_a_file_is_a_sentence(
    cli: CommandLine, where: str, text: str, sentence: str, way_out: str
) -> None:
    """It names the file and the entry, the exit code is 2, and nothing is sent."""
    if where == "user":
        user_file(text)
    else:
        cli.write("pika-async.toml", text)
    ran = cli(*DRY_RUN)
    path = config_files()[where == "user"]
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {path}: {sentence}" in ran.err
    assert way_out in ran.err
    assert "secret" not in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ["variable", "sentence"],
    [
        ("PIKA_ASYNC_PRIZE", "PIKA_ASYNC_PRIZE: must name an option, or a command and an option of it; did you mean PIKA_ASYNC_PRICE"),
        ("PIKA_ASYNC_API_KEY", "PIKA_ASYNC_API_KEY: no variable of this kind holds a key; set COMETAPI_API_KEY"),
        ("PIKA_ASYNC_BATCH_PRICE", 'PIKA_ASYNC_BATCH_PRICE: "x" must be a number'),
        ("PIKA_ASYNC_MAX_CHARGES", 'PIKA_ASYNC_MAX_CHARGES: "x" must be an integer'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_variable_is_a_sentence(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, variable: str, sentence: str
) -> None:
    """It names the variable, and the exit code is 2; an empty variable is not given."""
    monkeypatch.setenv(variable, "x")
    ran = cli(*DRY_RUN)
    assert (ran.code, ran.out, f"error: {sentence}" in ran.err) == (2, "", True), ran.err
    monkeypatch.setenv("PIKA_ASYNC_PRICE", "")
    monkeypatch.delenv(variable)
    assert cli(*DRY_RUN).code == 0


def test_a_broken_file_does_not_hide_the_help(cli: CommandLine) -> None:
    """Help and version need no options."""
    cli.write("pika-async.toml", "broken")
    assert [cli("--help").code, cli("batch", "--help").code, cli("--version").code] == [0, 0, 0]


def test_a_file_that_cannot_be_read_is_a_sentence(cli: CommandLine) -> None:
    """Bytes that are not UTF-8 are not TOML."""
    cli.write("pika-async.toml", b"out = '\xff'")
    ran = cli("providers")
    assert (ran.code, "error: pika-async.toml: is not valid TOML" in ran.err) == (2, True)


@given(st.dictionaries(st.sampled_from(["batch", "price", "api-key", "x", "--"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4,
)))  # fmt: skip
def test_any_entries_are_options_or_a_sentence(entries: dict[str, object]) -> None:
    """Whatever a file holds, it gives options that the command has, or a UsageError."""
    file = Path("pika-async.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pika_async.cli.configuration._read", lambda _: entries)
        try:
            found, sentence = OPTIONS.from_file(file, "batch"), f"{file}: "
        except UsageError as error:
            found, sentence = {}, str(error)
    assert sentence.startswith("pika-async.toml: ")
    assert set(found) <= set(OPTIONS.options["batch"])


# --- the provider -----------------------------------------------------------------------------------------------------


def test_the_only_key_chooses_the_provider(cli: CommandLine) -> None:
    """`--provider` may be left out where exactly one key is set."""
    ran = cli(*DRY_RUN)
    assert (ran.code, "CometAPI: 1 new charges," in ran.out + ran.err) == (0, True)


def test_several_keys_need_a_provider(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence lists them, without their values; a file may decide."""
    monkeypatch.setenv("GPTGE_API_KEY", KEY)
    ran = cli(*DRY_RUN)
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err
        == "error: --provider: must be given, because several keys are set: cometapi (COMETAPI_API_KEY), gptge (GPTGE_API_KEY)\n"
    )
    cli.write("pika-async.toml", 'provider = "gptge"')
    assert "gpt.ge: 1 new charges," in (ran := cli(*DRY_RUN)).out + ran.err


def test_without_a_key_the_variables_are_listed(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how to set one; a key of blanks is none, and a key file does not say whose it is."""
    monkeypatch.setenv("COMETAPI_API_KEY", "  ")
    ran = cli("generate", "a cat")
    assert (ran.code, ran.out) == (2, "")
    assert "--provider: no key is set; set the variable of one, as in export COMETAPI_API_KEY=..." in ran.err
    assert all(variable in ran.err for variable in ENV.values())
    ran = cli(*DRY_RUN, "--api-key-file", "key.txt")
    assert (ran.code, "--provider: must be given with --api-key-file" in ran.err) == (2, True)


# --- providers, effects, doctor, completion ---------------------------------------------------------------------------


def test_the_matrix_fits_80_columns_and_shows_which_keys_are_set(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is wider, no word is broken, and no key is shown."""
    monkeypatch.setenv("COLUMNS", "80")
    outputs = [cli("providers").out, cli("effects").out, *(cli("providers", name).out for name in PROVIDERS)]
    assert max(len(line.rstrip()) for text in outputs for line in text.splitlines()) <= 80
    assert "options.parameters.negativePrompt" in outputs[2]
    marks = next(line.split() for line in outputs[0].splitlines() if "its key is set" in line)
    assert marks[-6:] == ["yes", "-", "-", "-", "-", "-"]
    assert "pika, fal: documented by others, not tried against the live service" in outputs[0]
    assert "COMETAPI_API_KEY (set)" in outputs[0]
    assert "GPTGE_API_KEY (not set)" in outputs[0]
    records = json.loads(cli("providers", "--json").out)
    assert [record["key_is_set"] for record in records] == [True, False, False, False, False, False]
    assert [record["verified"] for record in records] == [True, True, True, True, False, False]


def test_effects_are_shown_by_provider(cli: CommandLine) -> None:
    """Of all as a matrix, of one as lines, and as JSON; an unknown provider is a sentence."""
    row = next(line.split() for line in cli("effects").out.splitlines() if "Levitate" in line)
    assert row == ["Levitate", "yes", "-", "-", "yes", "yes", "yes"]
    assert cli("effects", "--provider", "gptge").out.splitlines() == list(PROVIDERS["gptge"].effects)
    shown = json.loads(cli("effects", "--json").out)
    assert shown == {name: list(provider.effects) for name, provider in PROVIDERS.items()}
    ran = cli("effects", "--provider", "pikka")
    assert (ran.code, "must be one of" in ran.err) == (2, True)


def test_doctor_checks_every_provider_whose_key_is_set(
    cli: CommandLine, everywhere: SteppedEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finding has a plain mark, nothing is charged, and the worst exit code counts."""
    ran = cli("doctor")
    lines = ran.out.splitlines()
    assert (ran.code, [line for line in lines if line in PROVIDERS]) == (0, [*PROVIDERS])
    assert {line[:11].strip() for line in lines if line not in PROVIDERS} == {"ok", "not tried"}
    assert lines.count("not tried  generation: it costs; give --spend") == len(PROVIDERS)
    monkeypatch.setenv("COMETAPI_API_KEY", "another-key-entirely")
    ran = cli("doctor")
    assert (ran.code, [line[:11].strip() for line in ran.out.splitlines() if "account" in line]) == (3, ["differs"])
    assert "another-key" not in ran.out + ran.err
    assert "fal" in ran.out.splitlines()  # one refused account does not end the checks of the others
    assert len(everywhere.ledger) == 0


@pytest.mark.parametrize("provider", ["pika", "fal"])
def test_doctor_finds_nothing_wrong_with_a_wire_of_its_own(
    cli: CommandLine, everywhere: SteppedEmulator, provider: str
) -> None:
    """A 404 is the documented answer to an unknown task there; nothing is charged."""
    ran = cli("doctor", "--provider", provider)
    assert (ran.code, "differs" in ran.out, len(everywhere.ledger)) == (0, False, 0)
    balances = [line for line in ran.out.splitlines() if "balance" in line]
    assert balances == (["ok         balance: 1,000.00 US dollars"] if provider == "pika" else [])


def test_doctor_says_which_provider_was_not_tried(cli: CommandLine, everywhere: SteppedEmulator) -> None:
    """The native shape has no address of its own, and a base URL belongs to one provider."""
    local = attrs.evolve(PROVIDERS["native"], base_url=None)
    cli.monkeypatch.setitem(PROVIDERS, "native", local)
    ran = cli("doctor")
    assert ran.code == 2
    assert next(line for line in ran.out.splitlines() if line.startswith("not tried  configuration")).count("base-url")
    ran = cli("doctor", "--base-url", everywhere.base_url("gptge"))
    assert (ran.code, "--base-url: belongs to one provider; give --provider" in ran.err) == (2, True)
    cli.write("key.txt", KEY)
    assert cli("doctor", "--api-key-file", "key.txt").code == 2


@pytest.mark.parametrize(
    ["shell", "script", "startup"],
    [
        ("bash", ".local/share/bash-completion/completions/pika-async", ".bashrc"),
        ("zsh", ".zsh/completions/*pika-async", ".zshrc"),
        ("fish", ".config/fish/completions/pika-async.fish", None),
    ],
)
def test_completion_is_installed(cli: CommandLine, shell: str, script: str, startup: str | None) -> None:
    """The script knows the commands and their options, and the shell's start file loads it."""
    home = cli.folder / "home"
    cli.monkeypatch.setenv("HOME", str(home))
    cli.monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    cli.monkeypatch.delenv("ZDOTDIR", raising=False)
    home.mkdir()
    assert cli("--install-completion", "--shell", shell).code == 0
    [file] = home.glob(script)
    text = file.read_text(encoding="utf-8")
    assert all(word in text for word in ("batch", "max-charges", "effects", "log-level"))
    assert startup is None or (home / startup).read_text(encoding="utf-8").strip()


def test_on_a_terminal_no_word_is_broken(cli: CommandLine, everywhere: SteppedEmulator) -> None:
    """Errors and findings are wrapped between words at 80 columns; on a pipe each is one line."""
    lines = cli("doctor").out.splitlines()
    assert any(len(line) > 80 for line in lines)
    piped = cli(*DRY_RUN)
    for name, value in {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        cli.monkeypatch.setenv(name, value)
    shown, failed = cli("doctor").out, cli(*DRY_RUN)
    text = without_codes(shown + failed.err)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = {word for line in [*lines, piped.err] for word in line.split() if not re.search(r"\d{3}|[0-9a-f]{8}", word)}
    assert words <= set(text.split())
