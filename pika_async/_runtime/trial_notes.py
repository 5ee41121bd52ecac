"""Notes in the journal of when stopped accounts are tried again, for the status of a running batch.

Does not decide when that is.
"""

from __future__ import annotations

import contextlib
import time

from pika_async._journal.protocol import Journal
from pika_async._planning.planner import Planner
from pika_async._planning.reopenings import trial_setting
from pika_async.errors import JournalFailed
from pika_async.jobs import utc_from_timestamp

__all__ = ["TrialNotes"]


class TrialNotes:
    """The notes of the accounts of one client.

    :param journal: keeps them, one setting for each account.
    :param planner: decides when an account is tried again.
    """

    def __init__(self, journal: Journal, planner: Planner) -> None:
        self._journal = journal
        self._planner = planner
        names = planner.accounts if len(planner.accounts) > 1 else ()  # a single account is never tried again by itself
        #: The accounts that have a note.
        self._noted = {name for name in names if journal.get_setting(trial_setting(name)) is not None}

    def __bool__(self) -> bool:
        """Whether an account has a note."""
        return bool(self._noted)

    async def update(self, account: str, now: float) -> None:
        """Save when an account is tried again, or that it is not; a note stays as it is during the trial.

        :param now: the loop's time.
        """
        seconds, stop = (
            self._planner.reopenings.seconds_until(account, now),
            self._planner.accounts[account].stop_reason,
        )
        note = None
        if seconds is not None and stop is not None:
            note = {"at": utc_from_timestamp(time.time() + seconds).isoformat(), "reason": stop.message}
            self._noted.add(account)
        elif seconds is None and account in self._noted:
            self._noted.discard(account)
        else:
            return
        with contextlib.suppress(
            JournalFailed
        ):  # only for people; a failing journal stops submitting with the next job
            await self._journal.set_setting(trial_setting(account), note)
