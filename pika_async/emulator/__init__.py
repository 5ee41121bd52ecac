"""A local gateway that stands in for CometAPI, YEScale, gpt.ge and any host of the native shape.

It accepts, charges, settles and reports generations as the four pages say, serves real MP4s, and misbehaves on a
script. It imports nothing of the SDK that encodes or decodes, and it never sends anything off this machine.
"""

from pika_async.emulator.cdn import Media
from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import FAULTS, Rule, Scenario, ScenarioError
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
    Seen,
    Task,
)
from pika_async.emulator.render import Picture, Renderer, RenderError
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
    "Rule",
    "Scenario",
    "ScenarioError",
    "Seen",
    "Task",
]
