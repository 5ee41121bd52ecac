"""Emulated gateway for tests and demos: CometAPI, YEScale, gpt.ge, the native API, Pika's own API and fal.

It accepts, charges, settles and reports generations as the pages of the six document them, serves playable MP4s, and
produces the faults of a scenario, all on this machine. It imports no encoder or decoder of the SDK, and sends nothing
to other machines.
    async with Emulator(durations="lognormal:60,0.5", time_scale=0.01) as emulator:
        client = YourClient(emulator.base_url("yescale"), emulator.api_key)
        ...
        assert len(emulator.ledger) == 1

:class:`Emulator` serves HTTP on a loopback address. :class:`Gateway` is the same without sockets and clock, for tests
in virtual time. The format of a scenario is described in :mod:`pika_async.emulator.scenario`, its faults in
:mod:`pika_async.emulator.faults`.
"""

from pika_async.emulator.cdn import Media
from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import FAULTS
from pika_async.emulator.gateway import Gateway
from pika_async.emulator.options import GatewayOptions
from pika_async.emulator.records import (
    EMULATED_GATEWAYS,
    EMULATED_PROVIDERS,
    Answer,
    Callback,
    CallbackResult,
    CdnRequest,
    Charge,
    FaultEffect,
    Polls,
    Refusal,
    RequestLogEntry,
    Task,
    UploadedFile,
)
from pika_async.emulator.render import Picture, Renderer, RenderError, render_poster, render_video
from pika_async.emulator.scenario import Rule, Scenario, ScenarioError
from pika_async.emulator.server import Emulator

__all__ = [
    "EMULATED_GATEWAYS",
    "EMULATED_PROVIDERS",
    "FAULTS",
    "Answer",
    "Callback",
    "CallbackResult",
    "CdnRequest",
    "Charge",
    "Durations",
    "Emulator",
    "FaultEffect",
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
    "UploadedFile",
    "render_poster",
    "render_video",
]
