"""A platform of one's own takes nothing from this machine's shop."""

from pathlib import Path

import pytest

from cli.own_platform import isolated_environment


def test_no_setting_of_this_machine_reaches_it_and_its_own_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_real")
    monkeypatch.setenv("SANDBOX_LATENCY_MS", "900")
    monkeypatch.setenv("SANDBOX_CATALOGUES", "recorded")
    monkeypatch.setenv("DRAIN_WORKERS", "3")
    monkeypatch.setenv("TZ", "UTC")

    environment = isolated_environment(tmp_path, {"DRAIN_WORKERS": "8"})

    assert environment["STRIPE_SECRET_KEY"] == ""
    assert "SANDBOX_LATENCY_MS" not in environment
    assert (environment["SANDBOX_CATALOGUES"], environment["TZ"]) == ("recorded", "UTC")
    assert environment["DRAIN_WORKERS"] == "8"
    assert environment["DATA_DIR"] == str(tmp_path / "data")
    ports = [environment[name] for name in ("API_PORT", "DAGSTER_PORT", "SANDBOX_PORT", "CODE_SERVER_PORT")]
    assert len(set(ports)) == 4
