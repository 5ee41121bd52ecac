"""Results: what a submission returned, what a poll returned, and the video. Decodes nothing itself."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import attrs

from pika_async.models.notebook import video_html
from pika_async.models.urls import strip_userinfo

__all__ = ["LastSeen", "Receipt", "RouteStep", "Snapshot", "TaskState", "Video"]


class TaskState(enum.Enum):
    """The state of a task at one poll, in common terms for all gateways."""

    #: Accepted, not begun.
    QUEUED = "queued"
    #: Being generated; also every status word that no document lists.
    RUNNING = "running"
    #: Done, with a URL of the result.
    SUCCEEDED = "succeeded"
    #: Done according to the gateway, but the answer holds no URL yet.
    SUCCEEDED_WITHOUT_URL = "succeeded_without_url"
    #: The gateway settled the task as failed.
    FAILED = "failed"
    #: The gateway answered that there is no such task: transient just after a submission.
    MISSING = "missing"


def _strip_optional(url: str | None) -> str | None:
    return url if url is None else strip_userinfo(url)


@attrs.frozen(kw_only=True)
class Video:
    """A result as the provider describes it. URLs live from ten minutes to forever: download early.

    User names and passwords in the URLs are dropped, so that none is saved, shown or sent.
    """

    #: URL of the result, usually an MP4.
    url: str = attrs.field(converter=strip_userinfo)
    #: URL of a still picture.
    poster: str | None = attrs.field(default=None, converter=_strip_optional)
    #: URL of a small picture.
    thumbnail: str | None = attrs.field(default=None, converter=_strip_optional)
    #: URL of a page that shows the video.
    share_url: str | None = attrs.field(default=None, converter=_strip_optional)
    #: URL of the last frame as a picture.
    last_frame: str | None = attrs.field(default=None, converter=_strip_optional)
    #: The seed that was used; may be 2**32 or more.
    seed: int | None = None
    #: Length in seconds.
    duration: float | None = None
    task_id: str | None = None

    def _repr_html_(self) -> str:
        """Return a player and a short table, for notebooks."""
        return video_html(self.url, poster=self.poster, seed=self.seed, duration=self.duration)


@attrs.frozen(kw_only=True)
class Snapshot:
    """The answer to one poll."""

    task_id: str
    state: TaskState
    #: The provider's own status, in lower case; "" if the answer has none.
    word: str = ""
    #: False for a status word that no document lists, and where nothing was recognised; such a task counts as running.
    known_word: bool = True
    #: Set exactly when `state` is `SUCCEEDED`.
    video: Video | None = None
    #: Percent, 0 to 100, where the wire has it.
    progress: int | None = None
    #: The provider's reason of a failure, or its words beside an unknown status word; "" in every other state.
    reason: str = ""
    #: The provider's code of a failure, a word; None where the wire has none, and in every other state.
    failure_code: str | None = None
    #: URL of the video, or of a result that stood beside an unknown status word; None in every other state.
    url: str | None = None
    #: Unix seconds by the provider's clock; None where it is missing or 0 ("not yet").
    created_at: float | None = None
    #: Unix seconds by the provider's clock, as `created_at`.
    updated_at: float | None = None
    #: Points that stay charged, where the wire has them.
    points: float | None = None
    #: Points that were given back, where the wire has them.
    refunded: float | None = None
    #: Charge in US dollars; None where the wire has none, and while it is not settled.
    cost: float | None = None
    #: The whole answer, unknown fields included.
    raw: Any = attrs.field(default=None, repr=False, eq=False)


@attrs.frozen
class RouteStep:
    """One submission of a job: to which account, and what came of it."""

    #: The name of the account.
    account: str
    #: `accepted`, `unknown` (in doubt), or why it was provably not accepted: `not_sent`, `wait`, `rejected`, `stop`,
    #: `wrong_url`.
    verdict: str
    #: When the answer came, or when the request was sent if it is in doubt; UTC.
    at: datetime | None
    #: The reason in words; "" if it was accepted.
    reason: str = ""


@attrs.frozen
class LastSeen:
    """The latest facts in the answers about an unsettled task."""

    #: The status word; "" before the first one.
    status: str = ""
    #: The provider's words beside an unknown status word, or what was wrong with the latest answer.
    reason: str = ""
    #: URL of a result that stood beside an unknown status word.
    url: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.status, self.reason, self.url)))


@attrs.frozen(kw_only=True)
class Receipt:
    """The answer to a submission: a task id, an explicit failure code, or neither; both where it contradicts itself."""

    task_id: str | None = None
    #: Text that the provider needs beside the task id, such as the addresses of the task; None: it needs none.
    handle: str | None = None
    #: The body's own code where it is explicit and means failure (`400`, `"task_not_exist"`, ...), as text.
    failure_code: str | None = None
    #: The number in the body that stands for an HTTP status (`{"code": 500}`); None if there is none.
    failure_status: int | None = None
    message: str = ""
    #: The whole answer.
    raw: Any = attrs.field(default=None, repr=False, eq=False)
