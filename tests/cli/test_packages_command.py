"""`numnaroad packages`: what is on sale, and true reasons for what is not."""

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cli.catalogue import packages
from resources.settings import Settings
from tests.resources.db.shop import OfferSpec, open_shop

app = typer.Typer()
app.command("packages")(packages)


@pytest.fixture
def shop(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """One package that three providers sell, found by the command through its settings."""
    open_shop(engine, [OfferSpec("airalo", "2.00"), OfferSpec("esim_go", "3.00"), OfferSpec("mobimatter", "4.00")])
    assert settings.database_url
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    return engine


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as conn:
        for statement in statements:
            conn.execute(text(statement))


def explained() -> str:
    result = CliRunner().invoke(app, ["--explain"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_provider_that_is_off_or_rests_is_named_as_the_reason(shop: Engine) -> None:
    change(
        shop,
        "update offers set is_best_price = provider = 'mobimatter'",
        "update packages set best_landed_micros = 4000000",
        "update providers set enabled = false where slug = 'airalo'",
        "update providers set open_until = now() + interval '1 minute' where slug = 'esim_go'",
    )
    shown = explained()
    assert "the provider is switched off" in shown
    assert "the provider rests after failures" in shown
    assert shown.count("best price") == 1
    change(shop, "update providers set enabled = true", "update providers set open_until = now()")
    assert explained().count("joins at the next publication") == 2


def test_packages_off_sale_are_explained_and_texts_of_providers_are_shown_as_they_are(shop: Engine) -> None:
    change(
        shop,
        "update packages set on_sale = false",
        "update offers set is_best_price = false, excluded_reason = '[b]odd[/b]' where provider = 'airalo'",
    )
    shown = explained()
    assert "not on sale" in shown
    assert "[b]odd[/b]" in shown
