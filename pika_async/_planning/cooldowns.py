"""Pauses of one account for kinds of jobs of which its gateway has no channel, while other accounts take them. Pure."""

from __future__ import annotations

import attrs

from pika_async._planning.backoff import backoff_delay

__all__ = ["Cooldowns"]


@attrs.define
class _Cooldown:
    ready_at: float
    refusals: int = 0


@attrs.define
class Cooldowns:
    """When each kind of job may be sent again. A kind is a stratum. Times are the caller's monotonic seconds."""

    _by_stratum: dict[str, _Cooldown] = attrs.field(factory=dict)

    def ready_at(self, stratum: str, now: float) -> float:
        """Return when a job of this kind may be sent; `now` if at once."""
        found = self._by_stratum.get(stratum)
        return now if found is None else max(now, found.ready_at)

    def refuse(self, stratum: str, now: float, u: float, retry_after: float | None) -> None:
        """Record that the gateway had no channel; refusals of submissions that were under way together count once.

        :param u: a uniform random number in [0, 1), for the jitter of the wait.
        :param retry_after: seconds until the next submission; None or 0: grows with each refusal, up to 60 s.
        """
        found = self._by_stratum.setdefault(stratum, _Cooldown(now))
        if now < found.ready_at:
            return
        found.ready_at = now + (retry_after or backoff_delay(found.refusals, u, first=0.5, cap=60.0))
        found.refusals += 1

    def reset(self, stratum: str) -> None:
        """Record an acceptance."""
        self._by_stratum.pop(stratum, None)
