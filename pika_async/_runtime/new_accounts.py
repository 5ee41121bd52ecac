"""The accounts of a client that is being opened, each with its gateway. Sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.open_accounts import OpenAccount, OpenAccounts
from pika_async._runtime.telemetry import NullTelemetry
from pika_async.config.client import AccountConfig, ClientConfig

if TYPE_CHECKING:
    from pika_async._runtime.uploads import Uploads

__all__ = ["new_accounts"]


def new_accounts(config: ClientConfig, telemetry: NullTelemetry) -> OpenAccounts:
    """Create the accounts of a client."""
    return OpenAccounts([_open_account(config, account, telemetry) for account in config.accounts])


def _open_account(config: ClientConfig, account: AccountConfig, telemetry: NullTelemetry) -> OpenAccount:
    journal, here = config.journal, (account.provider.name, account.base_url)
    uploads = _uploads(config, account)
    gateway = GatewayClient(
        account.provider, account.base_url, account.transport, lenient=config.lenient,
        telemetry=telemetry.for_gateway(account.provider, account.base_url),
        is_task_id=lambda task_id: journal.key_for_task(*here, task_id) is not None,
        upload=None if uploads is None else uploads.url_for, proxy=config.proxy,
    )  # fmt: skip
    return OpenAccount(
        name=account.name,
        provider=account.provider,
        base_url=account.base_url,
        digest=account.digest,
        concurrency_key=account.concurrency_key,
        gateway=gateway,
    )


def _uploads(config: ClientConfig, account: AccountConfig) -> Uploads | None:
    """Return the uploads of an account; None if there is no place for them."""
    if config.uploader is None and account.provider.uploads is None:
        return None
    from pika_async._runtime.uploads import uploads_for  # noqa: PLC0415 - most clients upload nothing

    return uploads_for(
        account.provider, account.base_url, uploader=config.uploader, lifetime=config.upload_lifetime,
        journal=config.journal, transport=account.transport, proxy=config.proxy,
    )  # fmt: skip
