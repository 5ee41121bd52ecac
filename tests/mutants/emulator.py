"""Mutants of the emulator's strictness, without which the suite would learn from requests that no gateway takes."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/emulator/test_strictness.py",)

MUTANTS: Final = (
    Mutant(
        "true-is-a-number",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, (int, float)):",
        "if not isinstance(value, (int, float)):",
        "the emulator takes true for a number",
        _TESTS,
    ),
    Mutant(
        "true-is-an-integer",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, int):",
        "if not isinstance(value, int):",
        "the emulator takes true for an integer",
        _TESTS,
    ),
    Mutant(
        "whole-floats-are-integers",
        "emulator/checks.py",
        "if isinstance(value, bool) or not isinstance(value, int):",
        "if isinstance(value, bool) or not (isinstance(value, int) or isinstance(value, float) and value.is_integer()):",
        "the emulator takes 24.0 for an integer",
        _TESTS,
    ),
    Mutant(
        "anything-like-json",
        "emulator/backend.py",
        'if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":',
        'if "json" not in headers.get("content-type", "").lower():',
        "the emulator reads any content type that resembles JSON",
        _TESTS,
    ),
    Mutant(
        "fields-of-sisters-accepted",
        "emulator/checks.py",
        "if name not in fields:",
        "if name not in fields and path:",
        "the emulator accepts top-level fields that a page does not have",
        _TESTS,
    ),
    Mutant(
        "inner-fields-unchecked",
        "emulator/checks.py",
        "if name not in fields:",
        "if name not in fields and not path:",
        "the emulator accepts options that a page does not have",
        _TESTS,
    ),
    Mutant(
        "data-uri-is-base64",
        "emulator/request_schemas.py",
        'if value.startswith(("http://", "https://")):',
        'if value.startswith("data:"):\n        return None\n    if value.startswith(("http://", "https://")):',
        "the emulator takes a data URI for an image",
        _TESTS,
    ),
    Mutant(
        "any-effect-everywhere",
        "emulator/request_schemas.py",
        '    "promptText": Field(non_empty_text, required=True),\n    "model": Field(_version),\n'
        '    "options": Field(plain_object, required=True, inner=_videos(required=True)),\n    "image": Field(_media),\n'
        '    "video": Field(_media),\n    "pikaffect": Field(one_of(*COMMON_EFFECTS)),',
        '    "promptText": Field(non_empty_text, required=True),\n    "model": Field(_version),\n'
        '    "options": Field(plain_object, required=True, inner=_videos(required=True)),\n    "image": Field(_media),\n'
        '    "video": Field(_media),\n    "pikaffect": Field(one_of(*ALL_EFFECTS)),',
        "the emulator accepts effects that gpt.ge does not document",
        _TESTS,
    ),
)
