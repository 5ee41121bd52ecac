"""Accounts, and the file that lists them."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import Account, ConfigurationError, GenerationRequest, Routing, find_provider, load_accounts
from pika_async._planning.prices import PriceRow, Prices
from pika_async.config.accounts import checked_accounts

CANARY = "sk-canary-0123456789abcdef"


def refusal(make: Callable[[], object]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return caught.value


# --- accounts -------------------------------------------------------------------------------------------------------


def test_an_account_has_the_name_of_its_provider() -> None:
    """The provider may be given by its name in any case, by its title, or itself."""
    for provider in ("gptge", " GPTGE ", "gpt.ge", find_provider("gptge")):
        account = Account(provider)
        assert (account.provider, account.name, account.title) == (find_provider("gptge"), "gptge", "gpt.ge")
    assert Account("gptge", name="second").title == "second (gpt.ge)"
    assert Account("gptge", name=None) == Account("gptge")


def test_an_account_without_options_leaves_them_to_the_client() -> None:
    """Only the weight has a value of its own."""
    account = Account("cometapi")
    given = attrs.asdict(account, filter=lambda field, _: field.name not in {"provider", "name"})
    assert {name: value for name, value in given.items() if value is not None} == {"weight": 1}


def test_an_account_keeps_what_it_was_given() -> None:
    """Prices become a table."""
    account = Account(
        "cometapi", name="main-2", api_key_file="key.txt", base_url="https://gateway.example/v2", max_in_flight=20,
        submits_per_second=2, polls_per_second=0.5, max_charges=300, budget=25, price=0.28, weight=2.5,
    )  # fmt: skip
    assert attrs.astuple(account, recurse=False)[1:] == (
        "main-2", None, Path("key.txt"), "https://gateway.example/v2", 20, 2, 0.5, 300, 25.0, Prices.create(0.28), 2.5,
        None,
    )  # fmt: skip
    assert attrs.evolve(account, weight=1).price == account.price


def test_the_price_of_an_account_may_be_a_table() -> None:
    """The row with most facts that fits a request counts."""
    prices = Account("cometapi", price=[{"price": 0.28}, {"price": 0.4, "effect": True}]).price
    assert prices is not None
    assert prices.price_of(GenerationRequest("a cat", effect="Melt")) == 0.4
    assert prices.single is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name: must be 1 to 64 letters, digits, dots, hyphens or underscores, not ''; give name=..."),
    ({"name": "a b"}, "name: must be 1 to 64 letters"),
    ({"name": "é"}, "name: must be 1 to 64 letters"),
    ({"name": "x" * 65}, "name: must be 1 to 64 letters"),
    ({"name": "main\n"}, "name: must be 1 to 64 letters"),
    ({"name": 7}, "name: must be 1 to 64 letters"),
    ({"api_key": " "}, "api_key: is empty"),
    ({"api_key": 5}, "api_key: is empty"),
    ({"api_key_file": ""}, "api_key_file: must be the path of a text file that holds the key, not ''"),
    ({"api_key_file": 5}, "api_key_file: must be the path of a text file that holds the key, not 5"),
    ({"base_url": "gateway.example"}, "base_url: 'gateway.example' must be an http(s) URL; give"),
    ({"base_url": "ftp://gateway.example"}, "base_url: 'ftp://gateway.example' must be an http(s) URL"),
    ({"base_url": "https://gateway.example/?a=1"}, "base_url: 'https://gateway.example/?a=1' holds white space, a query"),
    ({"base_url": "https://gateway.example:port"}, "base_url: 'https://gateway.example:port' must be an http(s) URL"),
    ({"base_url": "https:///v1"}, "base_url: 'https:///v1' must be an http(s) URL"),
    ({"base_url": "https://[::1"}, "base_url: 'https://[::1' must be an http(s) URL"),
    ({"base_url": 5}, "base_url: 5 must be an http(s) URL"),
    ({"max_in_flight": 0}, "max_in_flight: must be an integer >= 1, not 0"),
    ({"max_in_flight": 1.0}, "max_in_flight: must be an integer >= 1, not 1.0"),
    ({"max_charges": True}, "max_charges: must be an integer >= 1, not True"),
    ({"submits_per_second": 0}, "submits_per_second: must be a number above 0, not 0"),
    ({"polls_per_second": float("nan")}, "polls_per_second: must be a number above 0, not nan"),
    ({"budget": -1}, "budget: must be a number above 0, not -1"),
    ({"budget": 10}, "budget: needs the price of each charge; give price"),
    ({"price": "0.28"}, "price: must be a number above 0, or a list of rows"),
    ({"price": [{"cost": 1}]}, "price: row 1 must have a price"),
    ({"weight": 0}, "weight: must be a number above 0, not 0"),
    ({"weight": 10**400}, "weight: must be a number above 0, not 1"),
    ({"weight": float("inf")}, "weight: must be a number above 0, not inf"),
    ({"weight": None}, "weight: must be a number above 0, not None"),
    ({"weight": True}, "weight: must be a number above 0, not True"),
    ({"api_key": "k", "api_key_env": "KEY"}, "api_key_env: must not be given with api_key; leave one of them out"),
    ({"api_key_file": "k", "api_key_env": "KEY"}, "api_key_env: must not be given with api_key_file; leave one"),
    ({"api_key": "k", "api_key_file": "k"}, "api_key_file: must not be given with api_key; leave one of them out"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_a_field_that_cannot_work_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    """The error names the field, its value and the way out."""
    assert refusal(lambda: Account("cometapi", **fields)).message.startswith(message)


def test_an_unknown_provider_is_refused() -> None:
    """The error suggests the nearest name."""
    assert "did you mean cometapi?" in refusal(lambda: Account("comet")).message
    given: Any = None
    assert refusal(lambda: Account(given)).setting == "provider"


def test_a_provider_without_an_address_needs_one() -> None:
    """Any host may serve the native shape."""
    assert refusal(lambda: Account("native")).setting == "base_url"
    assert Account("native", base_url="http://127.0.0.1:8080").base_url == "http://127.0.0.1:8080"


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_nowhere() -> None:
    """Neither the account, nor a record that holds it, nor an error shows it; it cannot be pickled."""
    account = Account("cometapi", api_key=CANARY)
    shown = [repr(account), str(account), f"{account}", repr(attrs.asdict(account)), repr(copy.copy(account))]
    with pytest.raises(TypeError, match="must not be pickled") as caught:
        pickle.dumps(account)
    shown += traceback.format_exception(caught.value)
    for fields in ({"api_key": f"{CANARY} x"}, {"api_key_env": CANARY}, {"base_url": f"https://{CANARY}@pika.example"}):
        error = refusal(lambda fields=fields: Account("cometapi", **fields))  # type: ignore[misc]
        shown += [*traceback.format_exception(error), repr(pickle.loads(pickle.dumps(error)))]
    assert [text for text in shown if "canary" in text] == []
    assert account.read_credential().reveal() == CANARY


def test_an_account_without_a_key_can_be_pickled() -> None:
    """Another process reads the key anew."""
    account = Account("gptge", api_key_env="SECOND_KEY", price=[{"price": 0.3, "model": "2.2"}])
    assert pickle.loads(pickle.dumps(account)) == account
    assert hash(account) == hash(copy.copy(account))


def test_the_key_is_read_where_the_account_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, the variable of the account, or that of the provider; white space around it does not count."""
    monkeypatch.setenv("COMETAPI_API_KEY", "from-the-provider")
    monkeypatch.setenv("SECOND_KEY", " from-the-variable\n")
    (tmp_path / "key.txt").write_text("from-the-file\n")
    assert Account("cometapi").read_credential().reveal() == "from-the-provider"
    assert Account("cometapi", api_key_env="SECOND_KEY").read_credential().reveal() == "from-the-variable"
    assert Account("cometapi", api_key_file=tmp_path / "key.txt").read_credential().reveal() == "from-the-file"
    assert Account("cometapi", api_key=" given ").read_credential().reveal() == "given"


def test_a_missing_key_is_an_error_that_names_the_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable or the file where it was sought."""
    monkeypatch.delenv("COMETAPI_API_KEY", raising=False)
    monkeypatch.setenv("SECOND_KEY", " ")
    error = refusal(Account("cometapi").read_credential)
    assert error.message == "api_key: no key for CometAPI; set COMETAPI_API_KEY, or give api_key or api_key_file"
    error = refusal(Account("cometapi", name="second", api_key_env="SECOND_KEY").read_credential)
    assert "no key for second (CometAPI); set SECOND_KEY, " in error.message
    error = refusal(Account("cometapi", api_key_file=tmp_path / "none.txt").read_credential)
    assert error.message == f"api_key_file: {tmp_path / 'none.txt'} cannot be read: No such file or directory"
    (tmp_path / "none.txt").write_bytes(b"\xff")
    error = refusal(Account("cometapi", api_key_file=tmp_path / "none.txt").read_credential)
    assert error.message.endswith("cannot be read: it is not text")
    (tmp_path / "none.txt").write_text("")
    assert refusal(Account("cometapi", api_key_file=tmp_path / "none.txt").read_credential).setting == "api_key_file"


# --- several --------------------------------------------------------------------------------------------------------


def test_accounts_of_one_client_have_different_names() -> None:
    """Two of one provider may have the same key, but a job must be able to name its account."""
    first, second = Account("cometapi", api_key="k"), Account("cometapi", api_key="k", name="second")
    assert checked_accounts([first, second]) == (first, second)
    error = refusal(lambda: checked_accounts([first, second, Account("cometapi")]))
    assert error.message == "provider: must have different names, but several are 'cometapi'; give each name=..."


@pytest.mark.parametrize(("accounts", "words"), [([], "at least one"), (["cometapi"], "not 'cometapi'; give Account(")])
def test_what_is_not_a_list_of_accounts_is_refused(accounts: Any, words: str) -> None:
    """An empty list and names alone are refused with the way out."""
    assert words in refusal(lambda: checked_accounts(accounts)).message


def test_the_strategy_is_one_of_three() -> None:
    """By default the account with most room gets the next job."""
    assert Routing().strategy == "capacity"
    assert [Routing(word).strategy for word in ("capacity", "cheapest", "fastest")] == [
        "capacity",
        "cheapest",
        "fastest",
    ]
    given: Any = "cheap"
    assert refusal(lambda: Routing(given)).message == (
        "strategy: must be one of capacity, cheapest, fastest, not 'cheap'; did you mean cheapest?"
    )


# --- files ----------------------------------------------------------------------------------------------------------


def accounts_file(folder: Path, text: str) -> Path:
    file = folder / "accounts.toml"
    file.write_text(text, encoding="utf-8")
    return file


def reason_of(file: Path) -> str:
    """Return why a file is refused; the error names the file."""
    error = refusal(lambda: load_accounts(file))
    assert error.setting == str(file)
    return error.reason


def test_a_file_lists_accounts_in_its_order(tmp_path: Path) -> None:
    """Each table is an account of its name; a key file is beside the file, unless its path is absolute."""
    file = accounts_file(tmp_path, """\
[accounts.second]
provider = "GPTGE"
api_key_env = "SECOND_KEY"
max_in_flight = 20
price = 0.28
budget = 25

[accounts.cometapi]
provider = "cometapi"
api_key_file = "keys/comet.txt"

[[accounts.cometapi.price]]
price = 0.3

[[accounts.cometapi.price]]
price = 0.5
model = 2.0
effect = true

[accounts.third]
provider = "native"
base_url = "http://127.0.0.1:8080"
api_key_file = "/run/secrets/key"
weight = 2
""")  # fmt: skip
    assert load_accounts(file) == [
        Account("gptge", name="second", api_key_env="SECOND_KEY", max_in_flight=20, price=0.28, budget=25),
        Account(
            "cometapi",
            api_key_file=tmp_path / "keys" / "comet.txt",
            price=[{"price": 0.3}, {"price": 0.5, "model": "2.0", "effect": True}],
        ),
        Account("native", name="third", base_url="http://127.0.0.1:8080", api_key_file="/run/secrets/key", weight=2),
    ]
    assert load_accounts(str(file))[1].price == Prices(
        (PriceRow(price=0.5, model="2.0", effect=True), PriceRow(price=0.3))
    )


def test_all_faults_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    """Each has its table, its field, its value and a way out; values of keys and of unknown fields are not shown."""
    file = accounts_file(tmp_path, f"""\
acounts = 1
api_key = "{CANARY}"

[accounts.main]
provider = "comet"
api_key = "{CANARY}"
max_inflight = 5
max_charges = 0
name = "other"
"x.token" = "{CANARY}"
note = "{CANARY}"
api_key_env = "{CANARY}"
price = [{{price = 0.1, modell = "2.0"}}, {{model = "2.0"}}]

[accounts."two words"]

[accounts]
three = 3
""")  # fmt: skip
    reason = reason_of(file)
    assert "canary" not in reason
    advice = "a key must not be in this file; name a variable with api_key_env, or a file with api_key_file"
    faults = [fault.partition(") ")[2] for fault in reason.removeprefix("14 faults: ").split("; (")]
    expected = [
        "acounts must be a table [accounts.NAME]; did you mean accounts?",
        "api_key must be a table [accounts.NAME]",
        "[accounts.main] provider: 'comet' must be one of cometapi, yescale, gptge, native, pika, fal",
        f"[accounts.main] api_key: {advice}",
        "[accounts.main] max_inflight: must be a field of an account; did you mean max_in_flight?",
        "[accounts.main] max_charges: must be an integer >= 1, not 0",
        "[accounts.main] name: must be left out; the name is that of the table",
        f"[accounts.main] x.token: {advice}",
        "[accounts.main] note: must be one of provider, api_key_file, base_url",
        "[accounts.main] api_key_env: must be the name of a variable in capitals, such as COMETAPI_API_KEY, not the ",
        "[accounts.main] price: row 1: 'modell' must be one of price, model, duration, resolution, effect, kind; did",
        "[accounts.'two words'] must have a name of 1 to 64 letters, digits, dots, hyphens or underscores",
        "[accounts.'two words'] provider: must be given; choose one of cometapi, yescale, gptge, native",
        "[accounts.three] must be a table",
    ]
    assert [fault[: len(words)] for fault, words in zip(faults, expected, strict=True)] == expected
    assert "; did you mean max_in_flight?; (6)" in reason
    assert "; row 2 must have a price; give price = NUMBER; (12)" in reason


def test_a_key_in_a_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    """The traceback of the error does not hold it either."""
    file = accounts_file(tmp_path, f'[accounts.main]\nprovider = "cometapi"\napi_key = "{CANARY}"\n')
    error = refusal(lambda: load_accounts(file))
    assert error.message == (
        f"{file}: [accounts.main] api_key: a key must not be in this file; name a variable with api_key_env, or a "
        "file with api_key_file"
    )
    assert [line for line in traceback.format_exception(error) if "canary" in line] == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must list at least one account; add a table [accounts.NAME] with provider = PROVIDER"),
        ("[accounts]", "must list at least one account; add a table [accounts.NAME] with provider = PROVIDER"),
        ("accounts = 3", "accounts must be tables [accounts.NAME]"),
        ("[accounts]\nmain = 3", "[accounts.main] must be a table"),
        ("[accounts.main]", "[accounts.main] provider: must be given"),
        ("[accounts.main]\nprovider = 'gptge'\nbudget = 5",
         "[accounts.main] budget: needs the price of each charge; give price"),
        ("[accounts.main]\nprovider = 'gptge'\napi_key_file = ''",
         "[accounts.main] api_key_file: must be the path of a text file that holds the key, not ''"),
        ("[account.main]\nprovider = 'gptge'", "account must be a table [accounts.NAME]; did you mean accounts?"),
    ],
)  # fmt: skip
def test_a_file_with_one_fault_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """An empty file, a missing provider and a wrong table are named with the way out."""
    assert reason_of(accounts_file(tmp_path, text)).startswith(reason)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, one that is not TOML and one that is not text differ; a byte order mark may stand before the text."""
    file = accounts_file(tmp_path, "\ufeff[accounts.main]\nprovider = 'gptge'\n")
    assert [account.name for account in load_accounts(file)] == ["main"]
    file.write_text("[accounts.main\n")
    assert reason_of(file).startswith("is not valid TOML: ")
    file.write_bytes(b"\xff")
    assert reason_of(file).startswith("is not valid TOML: ")
    file.unlink()
    assert reason_of(file) == "cannot be read: No such file or directory"
