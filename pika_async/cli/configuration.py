"""Options from files and variables: `pika-async.toml` here and in the user's folder, and `PIKA_ASYNC_*`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from cyclopts import App, Argument, ArgumentCollection, CycloptsError, Token
from platformdirs import user_config_path

from pika_async.cli.columns import CAMERA_AXES
from pika_async.cli.exits import UsageError
from pika_async.errors import shorten, strip_control
from pika_async.models.spelling import did_you_mean
from pika_async.providers import PROVIDERS

__all__ = ["FILE_NAME", "PREFIX", "Configuration", "config_files", "configure", "describe_mistake", "name_places"]

FILE_NAME: Final = "pika-async.toml"
PREFIX: Final = "PIKA_ASYNC_"
#: The end of a name that would hold a secret. No option has such a name.
_SECRET: Final = re.compile(r"(^|[-_])(key|token|secret|password)s?$", re.IGNORECASE)
#: The sources of values that were typed.
_COMMAND_LINE: Final = frozenset({"", "cli"})
_KEY_ADVICE: Final = "set COMETAPI_API_KEY or the like in the environment, or give api-key-file"

#: Options of files and variables that are left out beside one that was typed, because the two exclude each other.
_REPLACED_BY: Final = {
    "accounts": frozenset({"provider", "base-url", "api-key-file", "price"}),
    "provider": frozenset({"accounts", "routing", "account"}),
    "base-url": frozenset({"accounts", "routing", "account"}),
}

#: An option, or the field that it sets, at the beginning of an error text.
_SUBJECT: Final = re.compile(rf"(?:--)?([a-z_-]+)(?=[: \[]|\.(?:{'|'.join(CAMERA_AXES)}):)")
#: An option within an error text.
_MENTION: Final = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")

Values = dict[str, Any]


@attrs.frozen
class Configuration:
    """Options that the commands have, against which files and variables are checked.

    :param options: the names of each command's options, as on the command line but without `--`; True if an option may
        be given several times.
    """

    options: Mapping[str, Mapping[str, bool]]

    @classmethod
    def of(cls, app: App) -> Configuration:
        """Read the options of every command of an app."""
        names = [name for name in app if not name.startswith("-")]
        return cls({name: _options_of(app[name].assemble_argument_collection(parse_docstring=False)) for name in names})

    @property
    def anywhere(self) -> set[str]:
        """The options of any command."""
        return {name for options in self.options.values() for name in options}

    def from_file(self, path: Path, command: str) -> dict[str, tuple[str, Any]]:
        """Return the options that a file gives to a command: the place and the value by the option's name.

        The table of the command counts more than the entries above all tables.

        :raises UsageError: names the file and the entry that is not an option, not a value of one, or a secret.
        """
        entries = _read(path)
        tables = {name: value for name, value in entries.items() if isinstance(value, dict)}
        general = {name: value for name, value in entries.items() if name not in tables}
        for name, value in general.items():
            self._check(f"{path}: {name}", name, value, self.anywhere, "any command")
        for table, values in tables.items():
            if table not in self.options:
                known = list(self.options)
                raise UsageError(f"{path}: [{table}]: must be a command{did_you_mean(table, known)}")
            for name, value in values.items():
                self._check(f"{path}: [{table}] {name}", name, value, set(self.options[table]), table)
        found = {name: (f"{path}: {name}", value) for name, value in general.items() if name in self.options[command]}
        own = tables.get(command, {})
        return found | {name: (f"{path}: [{command}] {name}", value) for name, value in own.items()}

    def _check(self, place: str, name: str, value: Any, known: set[str], owner: str) -> None:
        if name not in known:
            if _SECRET.search(name):
                raise UsageError(f"{place}: a key must not be in this file; {_KEY_ADVICE}")
            if name.removeprefix("no-") in known:
                raise UsageError(f"{place}: must be written as {name.removeprefix('no-')} = false")
            plain = name.lstrip("-").replace("_", "-")
            hint = f'; did you mean "{plain}"?' if plain in known else did_you_mean(name, sorted(known))
            raise UsageError(f"{place}: must be an option of {owner}, without the dashes in front{hint}")
        items = value if isinstance(value, list) else [value]
        if isinstance(value, list) and not any(options.get(name) for options in self.options.values()):
            raise UsageError(f"{place}: must be one value, not a list")
        for item in items:
            if not isinstance(item, str | int | float | bool):
                raise UsageError(f"{place}: {shorten(str(item))} must be a text, a number, true or false")
            if isinstance(item, str) and _is_secret(item):
                raise UsageError(f"{place}: a key or a password must not be in this file; {_KEY_ADVICE}")

    def from_environment(self, environment: Mapping[str, str], command: str) -> dict[str, tuple[str, str]]:
        """Return the options that variables give to a command: the variable and its text by the option's name.

        A variable that names the command counts more than one for all commands; an empty one is not given.

        :raises UsageError: names the variable that is none of either.
        """
        known = {_variable(name): ("", name) for name in sorted(self.anywhere)}
        for other, options in self.options.items():
            known |= {_variable(f"{other}-{name}"): (other, name) for name in options}
        found: dict[str, dict[str, tuple[str, str]]] = {"": {}, command: {}}
        for variable in sorted(name for name in environment if name.startswith(PREFIX)):
            if variable not in known:
                raise UsageError(f"{variable}: {_unknown_variable(variable, list(known))}")
            owner, name = known[variable]
            if environment[variable] and owner in found and name in self.options[command]:
                found[owner][name] = (variable, environment[variable])
        return found[""] | found[command]


def config_files() -> list[Path]:
    """Return the files that are read, the one that counts more first; they need not exist."""
    return [Path(FILE_NAME), user_config_path("pika-async", appauthor=False, roaming=True) / FILE_NAME]


def configure(
    root: App,
    places: dict[str, str],
    app: App,
    commands: tuple[str, ...],
    arguments: ArgumentCollection,
    *,
    configuration: Callable[[], Configuration],
) -> None:
    """Add to the arguments of one command line what variables and files give; the command line counts most.

    :param root: the app whose commands have the options.
    :param places: gets the place of each option that is taken from one; `app` to `arguments` are passed by cyclopts.
    :param configuration: returns the options of that app's commands; called only where a file or a variable gives any.
    :raises UsageError: names the file or variable, and the entry in it, that cannot be used.
    """
    # A folder that may not be entered holds no file for this user; `Path.is_file` would raise.
    files = [path for path in config_files() if os.path.isfile(path)]  # noqa: PTH113
    if not commands or commands[0] not in root or commands[0].startswith("-"):
        return
    if files or any(name.startswith(PREFIX) for name in os.environ):
        from cyclopts.config import Dict  # noqa: PLC0415 - most commands get every option typed

        typed = [argument.name.removeprefix("--") for argument in arguments if argument.tokens]
        replaced = {name for option in typed for name in _REPLACED_BY.get(option, ())}
        for source, values in _sources(configuration(), files, commands[0]):
            # The option `effects` has the name of a command, so values stand under that of their own command.
            if not replaced & values.keys():
                Dict({commands[0]: values}, source=source)(app, commands, arguments)
    for argument in arguments:
        if argument.tokens and argument.tokens[0].source not in _COMMAND_LINE:
            places[argument.name.removeprefix("--")] = argument.tokens[0].source


def _sources(configuration: Configuration, files: list[Path], command: str) -> Iterator[tuple[str, Values]]:
    for name, (variable, text) in configuration.from_environment(os.environ, command).items():
        yield variable, {name: text.split() if configuration.options[command][name] else text}
    for path in files:
        for name, (place, value) in configuration.from_file(path, command).items():
            yield place, {name: value}


def describe_mistake(error: CycloptsError) -> str:
    """Return the text of an error of the parser; one in a value of a file or a variable begins with its place."""
    text = re.sub(r"\s+", " ", strip_control(str(error))).strip()
    text = re.sub(r'unable to convert (".*?") into float', r"\1 must be a number", text)
    token = _token_of(error)
    if token is None or token.source in _COMMAND_LINE:
        return f"{text} (see --help)"
    reason = re.sub(f" (from|provided by) {re.escape(token.source)}[.]?", "", text)
    reason = re.sub(r'^Invalid value (".*?" )?for \S+', "", reason).lstrip(":. ").rstrip(".")
    value = f'"{strip_control(token.value)}"'
    reason = reason.removeprefix(value).lstrip().replace("Choose from:", "must be one of")
    return f"{token.source}: {reason if value in reason else f'{value} {reason[:1].lower()}{reason[1:]}'}"


def name_places(text: str, places: Mapping[str, str], setting: str = "") -> str:
    """Return an error text that names the file and entry, or the variable, of each option that it is about.

    :param places: the place of each option that was not typed.
    :param setting: an option that the error is about, although the text may not name it; default "", none.
    """
    subject = _SUBJECT.match(text)
    name = "" if subject is None else subject[1].replace("_", "-")
    name = name if name in places else name.removesuffix("s")  # --ingredient sets the field ingredients
    if subject is not None and name in places:
        text = f"{places[name]}{text[subject.end() :]}"
    mentioned = dict.fromkeys([*_MENTION.findall(text), setting])
    others = [other for other in mentioned if other in places and other != name]
    return "; ".join([text, *(f"--{other} is given by {places[other]}" for other in others)])


def _token_of(error: CycloptsError) -> Token | None:
    """Return the text that an error is about; a validator's error has only its argument."""
    token: Token | None = getattr(error, "token", None)
    argument: Argument | None = getattr(error, "argument", None)
    return argument.tokens[0] if token is None and argument is not None and argument.tokens else token


def _options_of(arguments: ArgumentCollection) -> dict[str, bool]:
    return {
        argument.name.removeprefix("--"): argument.token_count()[1]
        for argument in arguments
        if argument.name.startswith("--")
    }


def _read(path: Path) -> Values:
    import tomllib  # noqa: PLC0415 - as above

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path}: is not valid TOML: {error}") from None


def _is_secret(text: str) -> bool:
    """Whether a value is the key of a provider in this environment, or a URL with a password."""
    keys = {os.environ.get(provider.api_key_env, "").strip() for provider in PROVIDERS.values()} - {""}
    try:
        return text.strip() in keys or urlsplit(text).password is not None
    except ValueError:
        return False


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace("-", "_")


def _unknown_variable(variable: str, known: list[str]) -> str:
    if _SECRET.search(variable):
        return "no variable of this kind holds a key; set COMETAPI_API_KEY or the like, or PIKA_ASYNC_API_KEY_FILE"
    return f"must name an option, or a command and an option of it{did_you_mean(variable, known)}"
