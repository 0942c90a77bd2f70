"""Settings: unset means sandbox, part by part; live mode names everything that is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resources.settings import PROVIDERS, MissingSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]


def test_without_keys_every_part_is_the_sandbox() -> None:
    settings = Settings(sandbox_port=8199)

    parts = [settings.stripe, settings.resend, settings.slack, settings.rates, *map(settings.provider, PROVIDERS)]

    assert not any(part.live for part in parts)
    assert all(part.url.startswith("http://127.0.0.1:8199/") for part in parts)


def test_keys_switch_one_provider_to_live_and_leave_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESIM_GO_API_KEY", "a-key")

    settings = load_settings()

    assert settings.provider("esim_go").live
    assert settings.provider("esim_go").url == "https://api.esim-go.com/v2.5"
    assert [slug for slug in PROVIDERS if settings.provider(slug).live] == ["esim_go"]


def test_an_address_of_ones_own_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRALO_API_URL", "https://proxy.example/v2/")

    assert load_settings().provider("airalo").url == "https://proxy.example/v2"


def test_live_mode_names_every_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE", "1")
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_x")

    with pytest.raises(MissingSettings) as caught:
        load_settings()

    message = str(caught.value)
    for name in ("AIRALO_CLIENT_SECRET", "MOBIMATTER_MERCHANT_ID", "STRIPE_WEBHOOK_SECRET", "DATABASE_URL"):
        assert name in message
    assert "STRIPE_SECRET_KEY" not in message
    assert "sk_live" not in message


def test_live_mode_starts_when_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE", "1")
    for name in Settings(live=True).missing_for_live:
        monkeypatch.setenv(name, "postgresql://h/d" if name == "DATABASE_URL" else "value")

    assert load_settings().live


@pytest.mark.parametrize(
    ("given", "excused"),
    [("ESIM_CARD_API_KEY", {"ESIM_CARD_EMAIL", "ESIM_CARD_PASSWORD"}), ("ESIM_CARD_EMAIL", {"ESIM_CARD_API_KEY"})],
)
def test_esim_card_takes_a_login_or_a_key(monkeypatch: pytest.MonkeyPatch, given: str, excused: set[str]) -> None:
    monkeypatch.setenv(given, "x")

    assert not excused & set(Settings().missing_for_live)


def test_secrets_are_not_shown() -> None:
    settings = Settings(stripe_secret_key="sk_live_secret", database_url="postgresql://u:pw@h/d")  # type: ignore[arg-type]  # str

    assert "sk_live_secret" not in repr(settings)
    assert "pw" not in repr(settings)
    assert "sk_live_secret" not in repr(settings.stripe)


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOREFRONT_ORIGINS", "https://a.example/, https://b.example")

    assert load_settings().storefront_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("public_url", "own"),
    [
        ("http://127.0.0.1:8000", ("http://127.0.0.1:8000", "http://localhost:8000")),
        ("http://localhost:8000/", ("http://localhost:8000", "http://127.0.0.1:8000")),
        ("http://localhost", ("http://localhost", "http://127.0.0.1")),
        ("https://shop.example", ("https://shop.example",)),
        ("http://localhost.example:8000", ("http://localhost.example:8000",)),
        ("http://127.0.0.1.example:8000", ("http://127.0.0.1.example:8000",)),
    ],
)
def test_a_shop_on_this_machine_is_known_by_both_of_its_names(public_url: str, own: tuple[str, ...]) -> None:
    settings = Settings(public_url=public_url, storefront_origins=("https://a.example",))

    assert settings.own_origins == own
    assert settings.origins == (*own, "https://a.example")


def test_the_example_file_names_every_setting_and_nothing_else() -> None:
    named = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    known = {name.upper() for name in Settings.model_fields}

    assert known <= named
    assert {name for name in named - known if not name.startswith("SANDBOX_")} == set()


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [str(Path(sys.executable).parent / "numnaroad"), "run"]
        environment = {"API_PORT": str(port), "DATA_DIR": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
        result = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )

    assert result.returncode == 2
    assert f"Port {port} is busy" in result.stdout
    assert "API_PORT" in result.stdout


def test_a_low_balance_is_one_for_all_providers_or_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().low_balance_micros("airalo") == 100_000_000
    monkeypatch.setenv("LOW_BALANCE_USD", "50, airalo=500")
    settings = Settings()
    assert [settings.low_balance_micros(slug) for slug in ("airalo", "esim_go")] == [500_000_000, 50_000_000]
    monkeypatch.setenv("LOW_BALANCE_USD", "arialo=500")
    with pytest.raises(ValueError, match="names arialo; the providers are airalo"):
        Settings()
