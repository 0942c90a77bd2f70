"""Every setting, typed, read once from the environment and `.env`; unset secrets mean the sandbox, part by part.

`load_settings()` is the only reader. With `LIVE=1` nothing may fall back to the sandbox: `MissingSettings` then names
every variable that is missing.
"""

import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from esim.errors import NumnaRoadError

PROVIDERS = ("airalo", "esim_access", "esim_go", "mobimatter", "esim_card")


class MissingSettings(NumnaRoadError):
    """Live mode needs settings that are not there."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a part of the outside world is and how we sign in; `live` is False when it is the sandbox."""

    url: str
    live: bool
    credentials: dict[str, str] = field(default_factory=dict, repr=False)


class Settings(BaseSettings):
    """All settings; names in the environment are the field names in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", env_ignore_empty=True, frozen=True)

    live: bool = False
    data_dir: Path = Path(".data")
    database_url: SecretStr | None = None
    dagster_database_url: SecretStr | None = None
    lake_data_path: str | None = None
    lake_catalogue_url: SecretStr | None = None
    dagster_home: Path | None = None

    host: str = "127.0.0.1"
    api_port: int = 8000
    dagster_port: int = 3000
    code_server_port: int = 3030
    sandbox_port: int = 8100
    sandbox_smtp_port: int = 8125
    api_workers: int = 1
    public_url: str | None = None
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.1", "::1")
    storefront_origins: Annotated[tuple[str, ...], NoDecode] = ()
    rate_limit_per_minute: int = 100
    sell_currencies: Annotated[tuple[str, ...], NoDecode] = ("USD", "EUR", "GBP")

    airalo_api_url: str | None = None
    airalo_client_id: str | None = None
    airalo_client_secret: SecretStr | None = None
    esim_access_api_url: str | None = None
    esim_access_client_id: str | None = None
    esim_access_client_secret: SecretStr | None = None
    esim_go_api_url: str | None = None
    esim_go_api_key: SecretStr | None = None
    mobimatter_api_url: str | None = None
    mobimatter_api_key: SecretStr | None = None
    mobimatter_merchant_id: str | None = None
    mobimatter_webhook_public_key: str | None = None
    esim_card_api_url: str | None = None
    esim_card_api_key: SecretStr | None = None
    esim_card_email: str | None = None
    esim_card_password: SecretStr | None = None
    provider_webhook_ips: Annotated[tuple[str, ...], NoDecode] = ()

    stripe_secret_key: SecretStr | None = None
    stripe_webhook_secret: SecretStr | None = None
    stripe_api_base: str | None = None
    resend_api_key: SecretStr | None = None
    resend_api_url: str | None = None
    mail_from: str = "NumnaRoad <orders@numnaroad.test>"
    smtp_host: str | None = None
    smtp_port: int = 587
    smtp_user: str | None = None
    smtp_pass: SecretStr | None = None
    slack_webhook_url: SecretStr | None = None
    rates_url: str | None = None
    sentry_dsn: SecretStr | None = None
    encryption_keys: SecretStr | None = None
    lookup_hash_key: SecretStr | None = None

    numnaroad_operator: str | None = None
    enable_multi_provider_failover: bool = True
    enable_auto_refund: bool = True
    max_retry_attempts: Annotated[int, Field(ge=0, le=20)] = 3
    provider_timeout_ms: Annotated[int, Field(ge=100, le=300_000)] = 30_000
    failover_order: Literal["landed_cost", "priority"] = "landed_cost"
    allowed_loss_minor_usd: Annotated[int, Field(ge=0)] = 0
    customer_deadline_minutes: Annotated[int, Field(ge=1)] = 70
    drain_workers: Annotated[int, Field(ge=1, le=256)] = 96
    # One a processor: more of them than that only take work from each other, and write in smaller batches.
    max_drains: Annotated[int, Field(ge=1, le=16)] = min(4, max(2, os.cpu_count() or 2))
    drain_idle_seconds: float = 30.0
    drain_max_seconds: float = 600.0
    sensor_wait_seconds: Annotated[float, Field(ge=0, le=50)] = 40.0

    provider_min_success_percent: Annotated[int, Field(ge=0, le=100)] = 50
    provider_min_attempts: Annotated[int, Field(ge=1)] = 10
    low_balance_usd: Annotated[tuple[tuple[str, int], ...], NoDecode] = (("", 100),)  # "" is every other provider
    slow_drain_seconds: Annotated[int, Field(ge=1)] = 60
    open_purchase_alert_seconds: Annotated[int, Field(ge=1)] = 900
    late_refund_seconds: Annotated[int, Field(ge=1)] = 600
    late_notice_seconds: Annotated[int, Field(ge=1)] = 120
    dagster_public_url: str | None = None
    retain_drain_runs_days: Annotated[int, Field(ge=1)] = 3
    retain_runs_days: Annotated[int, Field(ge=1)] = 30
    retain_notices_days: Annotated[int, Field(ge=1)] = 30
    retain_events_days: Annotated[int, Field(ge=90)] = 90

    @field_validator("storefront_origins", "sell_currencies", "provider_webhook_ips", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("low_balance_usd", mode="before")
    @classmethod
    def _balances(cls, value: object) -> object:
        """Read `100,airalo=500`: a floor for all providers, and others by slug."""
        if not isinstance(value, str):
            return value
        parts = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
        unknown = sorted({slug for slug, _, _ in parts} - {"", *PROVIDERS})
        if unknown:
            raise ValueError(f"LOW_BALANCE_USD names {', '.join(unknown)}; the providers are {', '.join(PROVIDERS)}")
        return (("", 100), *((slug, amount) for slug, _, amount in parts))

    def low_balance_micros(self, slug: str) -> int:
        """Return the balance in micro-USD below which a provider has to be topped up."""
        floors = dict(self.low_balance_usd)
        return floors.get(slug, floors[""]) * 1_000_000

    @property
    def dagster_url(self) -> str:
        """The address operations reach the Dagster UI at."""
        return (self.dagster_public_url or f"http://{self.host}:{self.dagster_port}").rstrip("/")

    @property
    def sandbox_url(self) -> str:
        """The address of the sandbox."""
        return f"http://{self.host}:{self.sandbox_port}"

    @property
    def api_url(self) -> str:
        """The address customers and webhooks reach the API at."""
        return (self.public_url or f"http://{self.host}:{self.api_port}").rstrip("/")

    @property
    def own_origins(self) -> tuple[str, ...]:
        """The origins of our own pages: that of `api_url`, and on this machine its other name too."""
        parts = urlsplit(self.api_url)
        other = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}.get(parts.hostname or "")
        if other is None:
            return (self.api_url,)
        port = "" if parts.port is None else f":{parts.port}"
        return (self.api_url, f"{parts.scheme}://{other}{port}")

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins a checkout may return to and browsers may call from; our own storefront always."""
        return (*self.own_origins, *self.storefront_origins)

    @property
    def lake_path(self) -> str:
        """The folder (or `s3://` prefix) of the lake's Parquet files."""
        return self.lake_data_path or str(self.data_dir.absolute() / "lake")

    @property
    def dagster_home_path(self) -> Path:
        """The folder Dagster keeps its instance configuration in."""
        return (self.dagster_home or self.data_dir / "dagster").absolute()

    def provider(self, slug: str) -> Endpoint:
        """Return where provider `slug` is and how we sign in.

        Raises:
            KeyError: there is no such provider.
        """
        live_url, sandbox_path, sandbox_credentials, names = _PROVIDER_ENDPOINTS[slug]
        given = {key: value for key, name in names.items() if (value := self._plain(name))}
        url: str | None = getattr(self, f"{slug}_api_url")
        key = self._plain(f"{slug}_webhook_public_key") if slug == "mobimatter" else ""
        hook = {"webhook_public_key": key} if key else {}
        if given:
            return Endpoint((url or live_url).rstrip("/"), live=True, credentials={**given, **hook})
        address = (url or f"{self.sandbox_url}{sandbox_path}").rstrip("/")
        return Endpoint(address, live=False, credentials={**sandbox_credentials, **hook})

    @property
    def stripe(self) -> Endpoint:
        """Stripe's address, secret key and webhook secrets (comma separated during a rotation)."""
        key, webhook = self._plain("stripe_secret_key"), self._plain("stripe_webhook_secret")
        if key:
            url = self.stripe_api_base or "https://api.stripe.com"
            return Endpoint(url, True, {"secret_key": key, "webhook_secret": webhook or ""})
        url = self.stripe_api_base or f"{self.sandbox_url}/stripe"
        return Endpoint(url, False, {"secret_key": "sk_test_sandbox", "webhook_secret": webhook or "whsec_sandbox"})

    @property
    def resend(self) -> Endpoint:
        """Resend's address and key."""
        if key := self._plain("resend_api_key"):
            return Endpoint(self.resend_api_url or "https://api.resend.com", True, {"api_key": key})
        return Endpoint(self.resend_api_url or f"{self.sandbox_url}/resend", False, {"api_key": "re_sandbox"})

    @property
    def slack(self) -> Endpoint:
        """The incoming webhook for operations."""
        if url := self._plain("slack_webhook_url"):
            return Endpoint(url, live=True)
        return Endpoint(f"{self.sandbox_url}/slack/webhook", live=False)

    @property
    def rates(self) -> Endpoint:
        """Where the European Central Bank's daily reference rates are read (XML)."""
        if self.rates_url:
            return Endpoint(self.rates_url, live=True)
        if self.live:
            return Endpoint("https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml", live=True)
        return Endpoint(f"{self.sandbox_url}/rates/eurofxref-daily.xml", live=False)

    @cached_property
    def missing_for_live(self) -> tuple[str, ...]:
        """The variables that must be set before `LIVE=1` can start."""
        names = [name for *_, required in _PROVIDER_ENDPOINTS.values() for name in required.values()]
        names += ["database_url", "stripe_secret_key", "stripe_webhook_secret", "slack_webhook_url"]
        names += ["encryption_keys", "lookup_hash_key", "public_url"]
        if not self.smtp_host:
            names.append("resend_api_key")
        # The eSIMCard portal issues either a login or a long-lived key.
        if self.esim_card_api_key:
            names = [name for name in names if name not in {"esim_card_email", "esim_card_password"}]
        elif self.esim_card_email:
            names.remove("esim_card_api_key")
        return tuple(name.upper() for name in names if not self._plain(name))

    def _plain(self, name: str) -> str:
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value or "")


_SANDBOX_MERCHANT = "00000000-0000-4000-8000-000000000001"
# slug -> live address, path in the sandbox, sandbox credentials, credential -> setting
_PROVIDER_ENDPOINTS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "airalo": (
        "https://partners-api.airalo.com/v2",
        "/airalo/v2",
        {"client_id": "sandbox", "client_secret": "sandbox-secret"},
        {"client_id": "airalo_client_id", "client_secret": "airalo_client_secret"},
    ),
    "esim_access": (
        "https://api.esimaccess.com",
        "/esim_access",
        {"client_id": "sandbox", "client_secret": "sandbox-secret"},
        {"client_id": "esim_access_client_id", "client_secret": "esim_access_client_secret"},
    ),
    "esim_go": (
        "https://api.esim-go.com/v2.5",
        "/esim_go/v2.5",
        {"api_key": "sandbox-key"},
        {"api_key": "esim_go_api_key"},
    ),
    "mobimatter": (
        "https://api.mobimatter.com/mobimatter",
        "/mobimatter",
        {"api_key": "sandbox-key", "merchant_id": _SANDBOX_MERCHANT},
        {"api_key": "mobimatter_api_key", "merchant_id": "mobimatter_merchant_id"},
    ),
    "esim_card": (
        "https://portal.esimcard.com/api/developer/reseller",
        "/esim_card/api/developer/reseller",
        {"email": "sandbox@numnaroad.test", "password": "sandbox-secret"},
        {"email": "esim_card_email", "password": "esim_card_password", "api_key": "esim_card_api_key"},
    ),
}


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Read the settings once per process.

    Raises:
        MissingSettings: live mode, and variables are missing; the message names every one.
    """
    settings = Settings()
    if settings.live and settings.missing_for_live:
        raise MissingSettings("LIVE=1 but these variables are not set: " + ", ".join(settings.missing_for_live))
    return settings
