"""Everything order jobs and sensors work with, built from the settings when it is first used.

`OrderTools` is plain and takes replacements for any part; `OrderOperations` hands it to Dagster. Nothing is opened
when definitions are imported, and every process opens its own connections.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Protocol

import dagster as dg
from sqlalchemy import Engine

from esim.ports import ChatNotifier, Clock, Mailer, PaymentGateway, Provider
from resources.db.databases import databases, make_engine
from resources.db.purchase_desk import PurchaseDesk, TrialOrder
from resources.db.vault import Vault
from resources.settings import Settings, load_settings

MOST_CONNECTIONS = 16  # all kept: with ninety-six workers, opening and closing more would be a third of the work
# No order transaction waits for anything outside; one that idles belongs to a process that stands still, whose locks
# would hold up every other worker at that order.
IDLE_TRANSACTION_SECONDS = 20


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class OrderTools:
    """The store, the providers, payments, mail and chat, each opened when it is first asked for."""

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider] | None = None,
        gateway: PaymentGateway | None = None,
        mailer: Mailer | None = None,
        notifier: ChatNotifier | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._providers, self._gateway, self._mailer, self._notifier = providers, gateway, mailer, notifier

    @cached_property
    def url(self) -> str:
        """The libpq URL of the operational store."""
        return databases(self.settings).operational

    @cached_property
    def engine(self) -> Engine:
        """The operational store; workers write together, so that a few connections serve many of them."""
        return make_engine(
            self.url,
            pool_size=min(self.settings.drain_workers + 2, MOST_CONNECTIONS),  # the drain itself, and its notices
            overflow=0,
            idle_transaction_seconds=IDLE_TRANSACTION_SECONDS,
        )

    @cached_property
    def vault(self) -> Vault:
        """The keys of what is encrypted at rest."""
        return Vault.from_settings(self.settings)

    @cached_property
    def desk(self) -> PurchaseDesk:
        """Where this process's workers write about their purchases."""
        trial = TrialOrder(self.settings.failover_order, self.settings.allowed_loss_minor_usd)
        return PurchaseDesk(self.engine, self.vault, self.clock, self.providers, trial)

    @cached_property
    def providers(self) -> Mapping[str, Provider]:
        """Every provider's client by slug, under limits and with tokens shared between processes."""
        if self._providers is not None:
            return self._providers
        from resources.db.limiter import PostgresLimiter
        from resources.db.tokens import PostgresTokenStore
        from resources.providers.registry import build_providers

        tokens = PostgresTokenStore(self.engine, self.vault)
        return build_providers(self.settings, limiter=PostgresLimiter(self.engine), tokens=tokens, clock=self.clock)

    @cached_property
    def gateway(self) -> PaymentGateway:
        """The payment service."""
        if self._gateway is not None:
            return self._gateway
        from resources.payments.stripe import stripe_gateway

        return stripe_gateway(self.settings)

    @cached_property
    def mailer(self) -> Mailer:
        """The mail carrier."""
        if self._mailer is not None:
            return self._mailer
        from resources.mail.carriers import mailer

        return mailer(self.settings)

    @cached_property
    def notifier(self) -> ChatNotifier:
        """The chat channel of operations."""
        if self._notifier is not None:
            return self._notifier
        from resources.mail.slack import notifier

        return notifier(self.settings)

    def close(self) -> None:
        """Give the store's connections back."""
        if "engine" in self.__dict__:
            self.engine.dispose()


class ToolSource(Protocol):
    """Whoever can hand over the order tools: the Dagster resource, or a test."""

    def tools(self) -> OrderTools:
        """Return the tools."""
        ...


class OrderOperations(dg.ConfigurableResource):  # type: ignore[type-arg]  # dagster leaves the parameter unbound
    """The order tools as a Dagster resource: one set per process, read from the environment when first used."""

    def tools(self) -> OrderTools:
        """Return this process's tools."""
        return _tools_of(os.getpid(), load_settings())


@lru_cache(maxsize=1)
def _tools_of(pid: int, settings: Settings) -> OrderTools:
    """Keep one set of tools per process: a forked child must not use its parent's connections."""
    return OrderTools(settings)
