"""Real gateways compared with their documentation, with your own keys: `python -m pytest -m live`.

Tests every provider whose key is in the environment, free of charge. With `PIKA_LIVE_SPEND=1` each test pays for one
generation. `PIKA_LIVE_SAVE=DIR` saves the answers. `PIKA_BASE_URL` is the address of native Pika.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pika_async import Provider, find_provider, provider_names
from pika_async.cli.doctor import diagnose
from pika_async.cli.doctor_options import DoctorOptions
from pika_async.cli.terminal import Terminal
from tests.fakes.requirements import skip


def address(provider: Provider) -> str | None:
    return provider.base_url or os.environ.get("PIKA_BASE_URL")


@pytest.mark.live
@pytest.mark.anyio
@pytest.mark.parametrize("name", provider_names())
async def test_the_gateway_answers_as_documented(name: str) -> None:
    """The gateway's answers do not differ from its documentation."""
    provider = find_provider(name)
    base_url = address(provider)
    if not os.environ.get(provider.api_key_env) or base_url is None:
        skip(f"{provider.api_key_env} or an address is not set")
    save_to = os.environ.get("PIKA_LIVE_SAVE")
    options = DoctorOptions(
        provider=name,
        base_url=base_url,
        spend=os.environ.get("PIKA_LIVE_SPEND") == "1",
        save_to=None if save_to is None else Path(save_to) / name,
    )
    doctor = await diagnose(options, Terminal())
    assert [finding.detail for finding in doctor.findings if not finding.ok] == []
