"""A local gateway that stands in for CometAPI, YEScale, gpt.ge and any host of the native shape.

It accepts, charges, settles and reports generations as the four pages say, serves real MP4s, and misbehaves on a
script. It imports nothing of the SDK that encodes or decodes, and it never sends anything off this machine.

    async with Emulator(durations="lognormal:60,0.5", time_scale=0.01) as emulator:
        client = YourClient(emulator.base_url("yescale"), emulator.api_key)
        ...
        assert len(emulator.ledger) == 1

:class:`Emulator` serves on loopback; :class:`Gateway` is the same without sockets and without a clock, for tests in
virtual time. What a script can do is listed in :mod:`pika_async.emulator.faults`, how one is written in
:mod:`pika_async.emulator.scenario`.
"""

from pika_async.emulator.cdn import Media
from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import FAULTS
from pika_async.emulator.gateway import Gateway, GatewayOptions
from pika_async.emulator.records import (
    PROVIDERS,
    Answer,
    Callback,
    CallbackResult,
    CdnRequest,
    Charge,
    Disruption,
    Polls,
    Refusal,
    RequestLogEntry,
    Task,
)
from pika_async.emulator.render import Picture, Renderer, RenderError, render_poster, render_video
from pika_async.emulator.scenario import Rule, Scenario, ScenarioError
from pika_async.emulator.server import Emulator

__all__ = [
    "FAULTS",
    "PROVIDERS",
    "Answer",
    "Callback",
    "CallbackResult",
    "CdnRequest",
    "Charge",
    "Disruption",
    "Durations",
    "Emulator",
    "Gateway",
    "GatewayOptions",
    "Media",
    "Picture",
    "Polls",
    "Refusal",
    "RenderError",
    "Renderer",
    "RequestLogEntry",
    "Rule",
    "Scenario",
    "ScenarioError",
    "Task",
    "render_poster",
    "render_video",
]
