"""Stories of results that cannot be fetched, beside those of other accounts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from pika_async import Account, FixedInterval, Limits, PikaClient
from pika_async.emulator import Emulator
from tests.fakes.memory_gateway import requests

pytestmark = pytest.mark.anyio


async def test_results_of_one_account_that_are_not_there_yet_hold_up_those_of_no_other(tmp_path: Path) -> None:
    late = [{"on": "cdn", "do": {"fault": "expired", "status": 404}}]  # asked for again for two minutes
    async with (
        Emulator(render=False, durations="constant:0.05", video_seconds=1.0, scenario=late) as stuck,
        Emulator(render=False, durations="constant:0.3", video_seconds=1.0) as other,
    ):
        accounts = [
            Account("native", api_key=stuck.api_key, base_url=stuck.base_url("native"), max_charges=4),
            Account("gptge", api_key=other.api_key, base_url=other.base_url("gptge"), max_charges=4),
        ]
        limits, polling = Limits(downloading=1), FixedInterval(0.05)
        async with PikaClient(accounts, limits=limits, polling=polling) as pika, asyncio.timeout(60):
            files: list[Path] = []
            async with aclosing(pika.as_settled(requests(8), download_to=tmp_path)) as jobs:
                async for job in jobs:
                    assert job.account == "gptge"
                    assert job.file is not None
                    files.append(job.file)
                    if len(files) == 4:
                        break
        assert len({charge.prompt for charge in [*stuck.ledger, *other.ledger]}) == 8
        assert len(stuck.ledger) == len(other.ledger) == 4
        assert all(file.exists() for file in files)
