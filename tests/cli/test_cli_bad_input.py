"""Errors in commands and inputs: exit code 2, one clear line for each error, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pika_async.emulator import Emulator
from tests.cli.command_line import KEY, CommandLine
from tests.http.media_files import made


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as serving:
        yield serving


GOOD = '{"prompt": "fine"}\n'
# name of the case, file name, its content, text of the error
BAD_ROWS = [
    ("no-json", "b.jsonl", GOOD + "{oops}", "b.jsonl:2: must be JSON"),
    ("cut-json", "b.jsonl", GOOD + '{"prompt": "a', "b.jsonl:2: must be JSON: Unterminated string"),
    ("two-objects", "b.jsonl", '{"prompt": "a"} {"prompt": "b"}', "b.jsonl:1: must be JSON: Extra data"),
    ("a-list", "b.jsonl", GOOD + '\n["a"]', "b.jsonl:3: must be a JSON object, not a list"),
    ("a-number", "b.jsonl", "17", "b.jsonl:1: must be a JSON object, not a number"),
    ("null", "b.jsonl", "null", "b.jsonl:1: must be a JSON object, not null"),
    ("nan", "b.jsonl", '{"prompt": "a", "aspect_ratio": NaN}', "b.jsonl:1: must be JSON: NaN"),
    ("huge-number", "b.jsonl", '{"prompt": "a", "seed": 1' + "0" * 5000 + "}", "b.jsonl:1: must be JSON: a number must have at most 100 digits"),
    ("deep", "b.jsonl", "[" * 100_000, "b.jsonl:1: must be JSON: nested too deep"),
    ("surrogate", "b.jsonl", '{"prompt": "a\\ud800"}', "b.jsonl:1: must be JSON: it holds a lone surrogate"),
    ("twice", "b.jsonl", '{"prompt": "a", "prompt": "b"}', 'b.jsonl:1: "prompt": must be given once'),
    ("near-field", "b.jsonl", '{"prompt": "a", "aspectRatoi": "1:1"}', "did you mean aspect_ratio?"),
    ("near-column", "b.csv", "prompt,Seeed\na,1\n", "did you mean seed?"),
    ("unknown-field", "b.jsonl", '{"prompt": "a", "promt": "b"}', 'b.jsonl:1: "promt": unknown field; did you mean prompt? It must be one of'),
    ("no-prompt", "b.jsonl", GOOD + '{"seed": 4}', "b.jsonl:2: prompt: must be given"),
    ("empty-prompt", "b.jsonl", '{"prompt": "  "}', "b.jsonl:1: prompt: '  ' must not be empty"),
    ("number-prompt", "b.jsonl", '{"prompt": 4}', "b.jsonl:1: prompt: 4 must be text, not int"),
    ("nul-prompt", "b.jsonl", '{"prompt": "a\\u0000"}', "b.jsonl:1: prompt: 'a\\x00' must not hold a NUL"),
    ("frame-rate", "b.jsonl", '{"prompt": "a", "frame_rate": 25}', "b.jsonl:1: frame_rate: 25 must be an integer from 8 to 24"),
    ("guidance", "b.jsonl", '{"prompt": "a", "guidance_scale": 4}', "guidance_scale: 4 must be an integer from 5 to 25"),
    ("motion", "b.jsonl", '{"prompt": "a", "motion": -1}', "motion: -1 must be an integer from 0 to 4"),
    ("motion-fraction", "b.jsonl", '{"prompt": "a", "motion": 1.5}', "motion: 1.5 must be an integer from"),
    ("seed", "b.jsonl", '{"prompt": "a", "seed": -1}', "seed: -1 must be an integer from"),
    ("ratio", "b.jsonl", '{"prompt": "a", "aspect_ratio": "5:1"}', "aspect_ratio: '5:1' must be from 0.4 to 2.5"),
    ("ratio-zero", "b.jsonl", '{"prompt": "a", "aspect_ratio": "1:0"}', "aspect_ratio: '1:0' must be a ratio"),
    ("effect", "b.jsonl", '{"prompt": "a", "effect": "Explod"}', "effect: 'Explod' must be one of Inflate"),
    ("camera-axis", "b.jsonl", '{"prompt": "a", "camera": {"roll": "left"}}', "camera: 'roll' must be a camera axis"),
    ("camera-word", "b.jsonl", '{"prompt": "a", "camera": {"pan": "up"}}', "camera.pan: 'up' must be one of left, right"),
    ("camera-text", "b.jsonl", '{"prompt": "a", "camera": "left"}', "camera: 'left' must be a camera"),
    ("image-and-video", "b.jsonl", '{"prompt": "a", "image": "http://h/a.png", "video": "http://h/a.mp4"}', "video: "),
    ("image-scheme", "b.jsonl", '{"prompt": "a", "image": "ftp://h/a.png"}', "image: 'ftp://h/a.png' must be an http"),
    ("image-missing", "b.jsonl", '{"prompt": "a", "image": "none.png"}', "image: 'none.png' must be an existing file"),
    ("image-folder", "b.jsonl", '{"prompt": "a", "image": "."}', "image: '.' must be an existing file"),
    ("image-too-large", "b.jsonl", '{"prompt": "a", "image": "large.png"}', "'large.png (900,000 bytes)' must be at most 735,000 bytes at native Pika"),
    ("video-not-here", "b.jsonl", '{"prompt": "a", "video": "http://h/a.mp4"}', "video: 'http://h/a.mp4' must be left out"),
    ("sfx-not-here", "b.jsonl", '{"prompt": "a", "sfx": true}', "sfx: True must be left out at native Pika"),
    ("mode-alone", "b.jsonl", '{"prompt": "a", "ingredients_mode": "precise"}', "ingredients_mode: 'precise' must come with ingredients"),
    ("ingredients", "b.jsonl", '{"prompt": "a", "ingredients": 5}', "ingredients: 5 must be a list"),
    ("key-path", "b.jsonl", '{"prompt": "a", "key": "../a"}', "key: '../a' must begin with a letter"),
    ("key-long", "b.jsonl", '{"prompt": "a", "key": "' + "k" * 201 + '"}', "must be at most 200 bytes long in UTF-8, not 201"),
    ("key-twice", "b.jsonl", '{"prompt":"a","key":"k"}\n{"prompt":"b","key":"k"}', "b.jsonl:2: key: 'k' must be unique, but b.jsonl:1 has it"),
    ("metadata", "b.jsonl", '{"prompt": "a", "metadata": [1]}', "metadata: [1] must be a mapping"),
    ("strict", "b.jsonl", '{"prompt": "a", "strict": 0}', "strict: 0 must be true or false"),
    ("half-utf-16", "b.jsonl", GOOD.encode("utf-16")[:-1], "b.jsonl:1: must be whole UTF-16"),
    ("damaged-utf-8", "b.txt", "fine\ncafé\ncrème brûlée".encode().replace(b"\xc3\xa9", b"\xa9", 1), "b.txt:2: byte 0xa9 is not UTF-8"),
    ("other-alphabet", "b.txt", "fine\nкошка".encode("cp1251"), "b.txt:2: byte 0xea is not UTF-8"),
    ("not-windows", "b.txt", b"fine\n\x81 caf\xe9", "b.txt:2: byte 0x81 is not UTF-8"),
    ("empty-file", "b.jsonl", "", "b.jsonl: must hold at least one request"),
    ("only-comments", "b.txt", "# a\n\n  # b\n", "b.txt: must hold at least one request"),
    ("only-a-header", "b.csv", "prompt,seed\n", "b.csv: must hold at least one request"),
    ("csv-quote", "b.csv", 'prompt\nfine\n"a', "b.csv:3: must be CSV"),
    ("csv-after-quote", "b.csv", 'prompt\n"a"b\n', "b.csv:2: must be CSV"),
    ("csv-header-quote", "b.csv", '"prompt\n', "b.csv:1: must be CSV"),
    ("csv-column", "b.csv", "prompt,image name\na,1\n", 'b.csv:1: "image name": unknown column; did you mean image? It must be one of'),
    ("csv-axis", "b.csv", "prompt,pan\na,left\n", "did you mean camera.pan?"),
    ("csv-twice", "b.csv", "prompt,prompt\na,b\n", 'b.csv:1: "prompt": must be one column, but occurs twice'),
    ("csv-alias", "b.csv", "Prompt;promptText\na;b\n", 'b.csv:1: "promptText": must be one column, but "Prompt" means prompt as well'),
    ("csv-more-twice", "b.csv", "prompt,Owner,Owner\na,b,c\n", '"Owner": must be one column'),
    ("csv-no-prompt", "b.csv", "key,seed\na,1\n", 'b.csv:1: "prompt": must be a column'),
    ("csv-no-header", "b.csv", "a cat in the rain\na dog\n", "with its name in the first row"),
    ("csv-cells", "b.csv", "prompt,seed\nred, white\nfine,1,2\n", "b.csv:3: must have 2 cells like the header, not 3"),
    ("csv-unnamed", "b.csv", ",prompt,\n0,a,\n", "b.csv:2: column A: must be empty, for the column has no name"),
    ("csv-fraction", "b.csv", "prompt,seed\na,1.5\n", "b.csv:2: seed: '1.5' must be an integer from"),
    ("csv-thousands", "b.csv", "prompt;seed\na;1.000\n", "b.csv:2: seed: '1.000' must be an integer from"),
    ("csv-nul", "b.csv", "prompt,seed\na\0,1\n", "b.csv:2: prompt: 'a\\x00' must not hold a NUL"),
    ("own-and-column", "b.csv", 'prompt,Owner,metadata\na,Ann,"{""Owner"": 1}"\n', 'metadata: "Owner" must be given once'),
    ("csv-flag", "b.csv", "prompt,extend\na,maybe\n", "b.csv:2: extend: 'maybe' must be true or false"),
    ("csv-camera", "b.csv", "prompt,camera\na,left\n", 'b.csv:2: camera: "left" must be a camera; write "pan=left;zoom=in"'),
    ("json-cut", "b.json", '[{"prompt": "a"},\n{]', "b.json:2: must be JSON"),
    ("json-number", "b.json", '["a", 5]', "b.json:2: must be a JSON object, not a number"),
    ("json-empty", "b.json", "[]", "b.json: must hold at least one request"),
    ("no-workbook", "b.xlsx", "prompt,seed", "b.xlsx: cannot be read as .xlsx: it holds text or something else"),
    ("old-workbook", "b.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "it is encrypted or an older .xls"),
    ("cut-workbook", "b.xlsx", b"PK\x03\x04", "b.xlsx: cannot be read as .xlsx"),
    ("csv-cameras", "b.csv", "prompt,camera,camera.pan\na,zoom=in,left\n", "b.csv:2: camera: must be given either as a whole or"),
    ("csv-metadata", "b.csv", "prompt,metadata\na,{\n", "b.csv:2: metadata: "),
    ("no-suffix", "prompts", "a", "prompts: must be a .jsonl, .json, .csv, .tsv, .xlsx or .txt file"),
    ("other-suffix", "b.xls", "[]", "b.xls: must be a .jsonl, .json, .csv, .tsv, .xlsx or .txt file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "named"), [pytest.param(*case[1:], id=case[0]) for case in BAD_ROWS])
def test_a_bad_row_is_named_and_nothing_is_sent(
    cli: CommandLine, emulator: Emulator, name: str, content: str | bytes, named: str
) -> None:
    """The error names the file, the line and the field, the exit code is 2, and the gateway gets no request."""
    cli.write("large.png", made("png").ljust(900_000, b"\0"))
    ran = cli.batch(emulator, cli.write(name, content))
    assert (ran.code, ran.out, len(emulator.requests)) == (2, "", 0)
    assert named in ran.err
    assert not (cli.folder / "pika-out").exists()


def test_every_bad_row_is_listed(cli: CommandLine, emulator: Emulator) -> None:
    """One run lists all of them."""
    cli.write("b.jsonl", GOOD + "{\n" + GOOD + '{"prompt": "a", "motion": 9}\n{"prompt": ""}\n')
    ran = cli.batch(emulator, "b.jsonl")
    assert [line.split(" ")[0] for line in ran.err.splitlines()] == ["b.jsonl:2:", "b.jsonl:4:", "b.jsonl:5:", "3"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "--provider"),
        (["--provider", "nope"], "'nope' must be one of cometapi"),
        (["--provider", "native", "--frob"], "Unknown option"),
        (["--provider", "native", "--max-in-flight", "many"], "--max-in-flight"),
        (["--provider", "native", "--base-url", "http://127.0.0.1:9", "--max-in-flight", "0"], "--max-in-flight: must be an integer >= 1, not 0"),
        (["--provider", "native", "--base-url", "http://127.0.0.1:9", "--max-charges", "-1"], "--max-charges: must be an integer >= 1, not -1"),
        (["--provider", "native", "--base-url", "http://127.0.0.1:9", "--deadline", "0"], "--deadline"),
        (["--provider", "native", "--base-url", "http://127.0.0.1:9", "--deadline", "nan"], "--deadline"),
        (["--provider", "native", "--base-url", "http://127.0.0.1:9", "--expected-seconds", "-1"], "--expected-seconds"),
        (["--provider", "native"], "--base-url: native Pika has no address of its own"),
        (["--provider", "native", "--base-url", "gopher://x"], "--base-url: 'gopher://x' must be an http(s) URL"),
        (["--provider", "native", "--base-url", "http://u:p@h"], "--base-url: holds a user"),
        (["--provider", "native", "--base-url", "http://h", "--api-key-file", "none"], "--api-key-file: none cannot be read"),
        (["--provider", "native", "--base-url", "http://h", "--api-key-file", "empty"], "--api-key-file: is empty"),
        (["--provider", "native", "--base-url", "http://h", "--api-key-file", "two"], "--api-key-file: holds white space"),
        (["--provider", "native", "--base-url", "http://h", "--out", "two"], "--out: two must be a folder"),
        (["--provider", "native", "--base-url", "http://h", "--out", "two/x"], "--out: two/x cannot be used"),
        (["--provider", "native", "--api-key", "sk-1"], "Unknown option"),
        (["--provider", "native", "--log-level", "loud"], "--log-level"),
        (["--provider", "native", "second.txt"], "second.txt"),
    ],
)  # fmt: skip
def test_a_bad_option_is_named(cli: CommandLine, argv: list[str], named: str) -> None:
    """There is one line that names it, and exit code 2."""
    cli.write("b.txt", "a cat")
    cli.write("empty", " \n")
    cli.write("two", "a b")
    ran = cli("batch", "b.txt", *argv)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert named in ran.err


def test_a_missing_key_names_the_variable(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error also names the option that reads it from a file."""
    monkeypatch.delenv("GPTGE_API_KEY")
    ran = cli("batch", cli.write("b.txt", "a cat"), "--provider", "gptge")
    assert ran.code == 2
    assert "set GPTGE_API_KEY, or give --api-key-file" in ran.err


def test_a_malformed_key_is_not_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and not its content."""
    monkeypatch.setenv("GPTGE_API_KEY", "secret-one secret-two")
    ran = cli("batch", cli.write("b.txt", "a cat"), "--provider", "gptge")
    assert (ran.code, "secret" in ran.err) == (2, False)
    assert ran.err.startswith("error: GPTGE_API_KEY: holds white space")


@pytest.mark.parametrize("source", ["none.txt", "folder.txt", "locked.txt", "a\0.txt"])
def test_an_input_that_cannot_be_read_is_named(cli: CommandLine, emulator: Emulator, source: str) -> None:
    """A missing file, a folder, a file that fails when it is read, or an invalid name."""
    (cli.folder / "folder.txt").mkdir()
    # A mode of 0 does not keep the superuser from reading; this file cannot be read by any user.
    (cli.folder / "locked.txt").symlink_to("/proc/self/mem")
    ran = cli.batch(emulator, source)
    assert (ran.code, len(emulator.requests)) == (2, 0)
    assert "cannot be read" in ran.err


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# none\n", b'{"prompt": 1}', b"\x81"])
def test_bad_standard_input_is_named(cli: CommandLine, emulator: Emulator, data: bytes) -> None:
    """The error names it stdin."""
    ran = cli.batch(emulator, "-", stdin=data)
    assert (ran.code, len(emulator.requests)) == (2, 0)
    assert ran.err.removeprefix("error: ").startswith("stdin:")


@pytest.mark.parametrize("existing", ["results.jsonl", "index.html", "assets/gallery.js", "videos/k.mp4"])
def test_a_batch_does_not_overwrite_existing_files(cli: CommandLine, emulator: Emulator, existing: str) -> None:
    """Results of an earlier batch, a foreign page or a video of the same name are refused before anything is sent."""
    (cli.folder / "pika-out" / existing).parent.mkdir(parents=True)
    (cli.folder / "pika-out" / existing).write_text("mine")
    ran = cli.batch(emulator, cli.write("b.jsonl", '{"prompt": "a", "key": "k"}'))
    assert (ran.code, len(emulator.requests)) == (2, 0)
    assert "choose another --out" in ran.err
    assert (cli.folder / "pika-out" / existing).read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["a cat", "--motion", "7"], "motion: 7 must be an integer from"),
        (["a cat", "--motion", "x"], "--motion"),
        (["", "--motion", "1"], "prompt: '' must not be empty"),
        (["a cat", "--camera", "left"], "camera: "),
        (["a cat", "--effect", "Nope"], "effect: 'Nope'"),
        (["a cat", "--sfx"], "sfx: True must be left out"),
        (["a cat", "--image", "none.png"], "image: 'none.png' must be an existing file"),
        (["a cat", "--out", "there.mp4"], "--out: there.mp4 exists"),
        (["a cat", "--out", "nowhere/a.mp4"], "--out: nowhere must be a folder"),
        (["a cat", "--ingredient", "here.png"], "ingredients[0]"),
        (["a cat", "--aspect-ratio", "wide"], "aspect_ratio: 'wide' must be a ratio"),
    ],
)  # fmt: skip
def test_a_bad_field_of_generate_is_named(cli: CommandLine, emulator: Emulator, argv: list[str], named: str) -> None:
    """It gives exit code 2 and one line, and nothing is sent."""
    cli.write("there.mp4", "mine")
    ran = cli("generate", *argv, "--provider", "native", "--base-url", emulator.base_url("native"))
    assert (ran.code, ran.out, len(emulator.requests), len(ran.err.splitlines())) == (2, "", 0, 1)
    assert named in ran.err


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["frobnicate"], "Unknown command"),
        (["demo", "--prompts", "0"], "Invalid value 0 for --prompts. Must be >= 1."),
        (["demo", "--out", "full"], "--out: full must be empty or hold an earlier demo"),
        (["emulate", "--durations", "often"], "durations 'often'"),
        (["emulate", "--host", "192.0.2.1"], "host must be a loopback address"),
        (["emulate", "--time-scale", "0"], "time_scale must be a finite number above 0"),
        (["emulate", "--scenario", "none.json"], "--scenario: none.json cannot be read"),
        (["emulate", "--scenario", "full/bad.json"], "--scenario: "),
        (["emulate", "--port", "99999"], "--port"),
        (["doctor", "--provider", "nope"], "--provider: 'nope' must be one of"),
        (["doctor", "--provider", "gptge", "--save", "full"], "--save: full must be empty"),
        (["doctor", "--provider", "gptge", "--save", "full/bad.json"], "--save: full/bad.json cannot be used"),
    ],
)
def test_a_bad_command_is_named(cli: CommandLine, argv: list[str], named: str) -> None:
    """Every other command gives exit code 2 and one line."""
    (cli.folder / "full").mkdir()
    cli.write("full/bad.json", '[{"on": "nothing"}]')
    ran = cli(*argv)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert named in ran.err.replace('"', "")  # versions of the option parser quote values and options differently


@pytest.mark.parametrize("option", ["--max-in-flight", "--max-charges"])
@pytest.mark.parametrize("value", ["1.5", "1e3", "0x10", "one", ""])
def test_a_limit_that_is_not_an_integer_is_not_rounded(
    cli: CommandLine, emulator: Emulator, option: str, value: str
) -> None:
    """A limit of 1.5 charges is refused, and nothing is sent."""
    cli.write("two.txt", "one\ntwo\n")
    ran = cli.batch(emulator, "two.txt", option, value)
    assert (ran.code, len(emulator.requests)) == (2, 0)
    assert option in ran.err
