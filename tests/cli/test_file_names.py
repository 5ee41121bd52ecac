"""Names of video files that are tried before anything costs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pika_async._journal.system_calls import open_file
from pika_async.cli import file_names
from pika_async.cli.exits import UsageError
from pika_async.cli.file_names import check_file_names, similar_keys
from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY


def test_keys_that_differ_in_case_or_composition_are_alike() -> None:
    """Groups keep the order of the keys; equal and different keys form none."""
    keys = ["Cat", "dog", "cat", "\u00e9", "dog", "CAT", "e\u0301"]
    assert similar_keys(keys) == [["Cat", "cat", "CAT"], ["\u00e9", "e\u0301"]]
    assert similar_keys(["cat", "dog", "cat"]) == []


def test_a_folder_that_holds_every_name_is_left_as_it_was(tmp_path: Path) -> None:
    """No file of the check stays; a folder that was missing is missing again, and one with a file keeps it."""
    check_file_names(tmp_path / "videos", ["Cat", "cat", "x" * 200])
    check_file_names(tmp_path / "videos", [])
    assert list(tmp_path.iterdir()) == []
    video = tmp_path / "cat.mp4"
    video.write_bytes(b"video")
    check_file_names(tmp_path, ["Cat", "cat"])
    assert [path.name for path in tmp_path.iterdir()] == ["cat.mp4"]
    assert video.read_bytes() == b"video"


def test_a_folder_without_case_refuses_keys_that_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both keys, and no file of the check stays."""
    monkeypatch.setattr(
        file_names, "open_file", lambda path, flags: open_file(path.with_name(path.name.lower()), flags)
    )
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **_: unlink(path.with_name(path.name.lower())))
    with pytest.raises(UsageError, match="videos cannot distinguish the files of Cat and cat; change one key"):
        check_file_names(tmp_path / "videos", ["Cat", "dog", "cat"])
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_the_system_cannot_encode_is_refused(tmp_path: Path) -> None:
    """The error names the key and the way out; the keys before it leave no file."""
    with pytest.raises(UsageError, match=r"a file for the key '\\ud800' cannot be named .*; set PYTHONUTF8=1"):
        check_file_names(tmp_path / "videos", ["cat", "\ud800"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_utf_8_a_key_outside_ascii_is_refused_before_it_costs(tmp_path: Path) -> None:
    """Under `LC_ALL=C` without UTF-8 mode the batch is an input error; with UTF-8 mode it runs."""
    (tmp_path / "b.jsonl").write_text('{"prompt": "a", "key": "k\\u00fc"}\n')
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as emulator:
        for mode, code, charges in (("0", 2, 0), ("1", 0, 1)):
            argv = [sys.executable, "-m", "pika_async", "batch", "b.jsonl", "--provider", "native"]
            argv += ["--base-url", emulator.base_url("native"), "--expected-seconds", "0.2"]
            env = os.environ | {ENV["native"]: KEY, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": mode}
            ran = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, check=False)
            assert (ran.returncode, len(emulator.ledger)) == (code, charges), ran.stderr
            assert b"Traceback" not in ran.stderr
    assert (tmp_path / "pika-out" / "videos" / "k\u00fc.mp4").exists()


def test_a_name_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest name is tried, in characters and in bytes, and the error says how long its path is."""
    tried: list[str] = []

    def refuse(path: Path, flags: int) -> int:
        tried.append(path.stem)
        if len(path.stem) > 20:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return os.open(path, flags)

    monkeypatch.setattr(file_names, "open_file", refuse)
    check_file_names(tmp_path, ["cat", "x" * 20, "\u732b" * 19])
    assert sorted(tried) == ["x" * 20, "\u732b" * 19]
    with pytest.raises(
        UsageError, match=r"x{21}\.~?\w+ \(\d+ characters\) cannot be made: .*; give a shorter key or --out"
    ):
        check_file_names(tmp_path, ["cat", "x" * 21])
    assert list(tmp_path.iterdir()) == []
