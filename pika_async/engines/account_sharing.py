"""What workers share of their accounts, kept in step: what is in use, why nothing is submitted, what was learned."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.limits import MAX_IN_FLIGHT
from pika_async._planning.planner import Planner
from pika_async.engines import shared_statements
from pika_async.engines.bounds import kind_of_stop, others_of, rate_share, window_share
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.shared_concurrency import SharedConcurrency, concurrency_of
from pika_async.errors import JournalFailed

__all__ = ["AccountSharing"]

#: Seconds after which answers that could not be reported are reported again.
REPORT_AGAIN_S: Final = 1.0

_log = logging.getLogger("pika_async.account_sharing")


class AccountSharing:
    """The accounts of one worker beside those of the others.

    :param database: an open database, with a row for each account.
    :param planner: the planner of the worker.
    :param journal: its journal.
    """

    def __init__(self, database: Database, planner: Planner, journal: ClusterJournal) -> None:
        self._database = database
        self._planner = planner
        self._journal = journal
        #: Set when an account has answered something that the other workers do not know.
        self._has_news = asyncio.Event()
        self._concurrencies: dict[str, SharedConcurrency] = {}
        for name, account in planner.accounts.items():
            made = SharedConcurrency.of(account.submissions.concurrency, self._has_news.set)
            self._concurrencies[name] = account.submissions.concurrency = made
        #: Why this worker submits nothing to an account, as it was saved, by the name of the account.
        self._stops: dict[str, tuple[str | None, str | None]] = {}
        #: Submissions under way at once, of all workers.
        self._window = planner.shared.submitting_limit

    async def sync(self) -> None:
        """Take over what the other workers use and have learned, and save why accounts are stopped."""
        state = await self._database.run(shared_statements.select_sharing)
        self._planner.shared.submitting_limit = window_share(self._window, state.live)
        for name, account in self._planner.accounts.items():
            row = state.rows.get(name)
            if row is None:
                continue
            submitting = state.submitting.get(name, 0)
            self._limit(account, row["in_flight"], submitting, row["max_in_flight"] or MAX_IN_FLIGHT)
            polls = account.limits.polls_per_second
            account.poll_rate.per_second = rate_share(polls, state.live)
            learned = concurrency_of(row)
            if learned is not None:
                self._concurrencies[name].adopt(learned, -state.ahead, row["in_flight"] - submitting)
            await self._save_stop(name, account, is_saved=row["stop_reason"] is not None)
        self._planner.load_history(await self._journal.new_samples())

    async def _save_stop(self, name: str, account: AccountPlanner, *, is_saved: bool) -> None:
        """Save why this worker submits nothing to an account; what another worker has saved stays until that ends.

        :param is_saved: whether the reason of any worker is saved.
        """
        stop = account.stop_reason
        own = (None, None) if stop is None else (stop.message, kind_of_stop(stop).value)
        if own != self._stops.get(name, (None, None)) or (stop is not None and not is_saved):
            await self._database.run(shared_statements.set_stop, name, *own)
            self._stops[name] = own

    def _limit(self, account: AccountPlanner, in_flight: int, submitting: int, ceiling: int) -> None:
        concurrency, own = account.submissions.concurrency, account.submissions.submitting
        concurrency.ceiling = ceiling
        concurrency.others, concurrency.others_submitting = others_of(
            in_flight, submitting, own_in_flight=account.in_flight, own_submitting=own, ceiling=ceiling
        )

    async def keep_reporting(self) -> None:
        """Report to the other workers what accounts answer, at once, until cancelled."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            try:
                for name, concurrency in self._concurrencies.items():
                    await self._report(name, concurrency)
            except JournalFailed as error:
                _log.warning("%s", error)
                await asyncio.sleep(REPORT_AGAIN_S)
                self._has_news.set()

    async def _report(self, name: str, concurrency: SharedConcurrency) -> None:
        answers = tuple(concurrency.answers)
        if answers:
            await self._database.run(shared_statements.record_answers, name, answers)
            concurrency.answers = [each for each in concurrency.answers if each not in answers]
