"""The wires of today against the documented ones, for the owner of keys: `python -m pytest -m live`.

A provider is looked at where its key is in the environment, free of charge. `PIKA_LIVE_SPEND=1` pays for one generation
each; `PIKA_LIVE_SAVE=DIR` keeps the answers; `PIKA_BASE_URL` is where native Pika is served.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pika_async import Provider, find_provider, provider_names
from pika_async.cli.doctor import DoctorOptions, diagnose
from pika_async.cli.terminal import Terminal


def address(provider: Provider) -> str | None:
    return provider.base_url or os.environ.get("PIKA_BASE_URL")


@pytest.mark.live
@pytest.mark.anyio
@pytest.mark.parametrize("name", provider_names())
async def test_the_wire_is_as_documented(name: str) -> None:
    """Nothing that the gateway answers today differs from its pages."""
    provider = find_provider(name)
    base_url = address(provider)
    if not os.environ.get(provider.api_key_env) or base_url is None:
        pytest.skip(f"{provider.api_key_env} or an address is not set")
    save_to = os.environ.get("PIKA_LIVE_SAVE")
    patient = DoctorOptions(
        provider=name,
        base_url=base_url,
        spend=os.environ.get("PIKA_LIVE_SPEND") == "1",
        save_to=None if save_to is None else Path(save_to) / name,
    )
    doctor = await diagnose(patient, Terminal())
    assert [finding.detail for finding in doctor.findings if not finding.ok] == []
