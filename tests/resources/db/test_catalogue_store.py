"""Bulk writing of the catalogue, holds, pricing rules and reference rates in a real database."""

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Engine, text

from esim.errors import InvalidInput, NotFound
from esim.pricing import PriceEnding, PricingRule, Rates, RuleScope, rule_for
from resources.db import catalogue_store as store
from resources.db.catalogue_reader import current_version
from resources.db.pricing_rules import add_rule, end_rule, rules_in_force
from resources.db.reference_rates import newest_rates, save_rates

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
OFFER = (
    "airalo:1,airalo,1,jp-5gb-30d,Japan,plan,JP,total,5000,30,4.500000,USD,4500000,\x1e,\x1e,"
    '"{""a"": ""b""}",{best},{enabled},true,\x1e\n'
)


def csv_of(rows: str) -> bytes:
    return (",".join(store.OFFER_COLUMNS) + "\n" + rows).encode()


def offer_csv(*, best: str = "true", enabled: str = "true") -> bytes:
    return csv_of(OFFER.replace("{best}", best).replace("{enabled}", enabled))


def test_written_offers_read_back_as_they_were(engine: Engine) -> None:
    with engine.begin() as conn:
        store.write_offers(conn, offer_csv())
        lines = store.read_offers(conn).decode().split("\n")
    assert lines[0].startswith("offer_id,provider,provider_package_id,package_id,name")
    assert lines[1] == (
        "airalo:1,airalo,1,jp-5gb-30d,Japan,plan,JP,total,5000,30,4500000,USD,4500000,\x1e,\x1e,"
        '"{""a"": ""b""}",1,1,1,1,\x1e'
    )


def test_a_rewrite_keeps_a_persons_switch_and_moves_the_rest(engine: Engine) -> None:
    with engine.begin() as conn:
        store.write_offers(conn, offer_csv())
        conn.execute(text("update offers set auto_mode = false, is_enabled = true"))
        store.write_offers(conn, offer_csv(best="false", enabled="false"))
        row = conn.execute(text("select is_best_price, is_enabled, auto_mode from offers")).one()
    assert tuple(row) == (False, True, False)


def test_a_write_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    broken = csv_of(OFFER.replace("{best}", "true").replace("{enabled}", "true").replace("4500000", "much"))
    with engine.connect() as conn:
        store.add_version(conn, packages=1, offers=1, changed=1, rates_on=None, run_id=None)
        with pytest.raises(psycopg.DataError, match="invalid input syntax"):
            store.write_offers(conn, broken)
    with engine.begin() as conn:
        assert current_version(conn) == 0


def test_versions_count_up(engine: Engine) -> None:
    with engine.begin() as conn:
        numbers = [
            store.add_version(conn, packages=1, offers=1, changed=1, rates_on=date(2026, 3, 2), run_id="r")[0]
            for _ in range(2)
        ]
        assert numbers == [1, 2]
        assert current_version(conn) == 2


def test_a_circuit_whose_time_is_over_counts_as_closed(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("update providers set open_until = :t where slug = 'airalo'"), {"t": NOW})
        assert store.provider_states(conn, NOW - timedelta(seconds=1))["airalo"].circuit_open
        assert not store.provider_states(conn, NOW)["airalo"].circuit_open
        assert [s.slug for s in sorted(store.provider_states(conn, NOW).values(), key=lambda s: s.priority)] == [
            "airalo", "esim_access", "esim_go", "mobimatter", "esim_card",
        ]  # fmt: skip


def test_a_hold_keeps_its_beginning_and_ends_with_a_good_catalogue(engine: Engine) -> None:
    with engine.begin() as conn:
        store.hold_provider(conn, "airalo", "it shrank", NOW)
        store.hold_provider(conn, "airalo", "it shrank more", NOW + timedelta(hours=6))
        query = text("select held_reason, held_at, synced_at from providers where slug = 'airalo'")
        assert tuple(conn.execute(query).one()) == ("it shrank more", NOW, None)
        store.release_provider(conn, "airalo", NOW + timedelta(hours=12))
        assert tuple(conn.execute(query).one()) == (None, None, NOW + timedelta(hours=12))
        told = list(conn.scalars(text("select payload ->> 'text' from outbox order by outbox_id")))
        assert (len(told), told[2]) == (3, "The catalogue of airalo is taken again.")
        store.release_provider(conn, "airalo", NOW + timedelta(hours=13))
        assert conn.scalar(text("select count(*) from outbox")) == 3, "nothing was held"


def test_the_migration_ships_sensible_rules(engine: Engine) -> None:
    with engine.begin() as conn:
        rules = rules_in_force(conn)
    assert [rule.scope for rule in rules] == [RuleScope.GLOBAL, RuleScope.DATA_BAND, RuleScope.DATA_BAND]
    assert rule_for(rules, "jp-500mb-1d", "JP", "airalo", 500).markup_bp == 4000
    assert rule_for(rules, "jp-unl-7d", "JP", "airalo", None).markup_bp == 2200
    assert rule_for(rules, "jp-5gb-30d", "JP", "airalo", 5000).markup_bp == 3000


def new_rule(scope: RuleScope, target: str, **figures: int) -> PricingRule:
    return PricingRule(0, scope, target, ending=PriceEnding.NINE, **figures)


def test_a_changed_rule_is_a_new_row_and_the_old_one_ends(engine: Engine) -> None:
    with engine.begin() as conn:
        first = add_rule(conn, new_rule(RuleScope.DESTINATION, "JP", markup_bp=100), note="", by="ops")
        conn.execute(text("update pricing_rules set valid_from = valid_from - interval '1 hour'"))
    with engine.begin() as conn:
        second = add_rule(conn, new_rule(RuleScope.DESTINATION, "JP", markup_bp=200), note="", by="ops")
        assert second.rule_id > first.rule_id
        assert {rule.rule_id for rule in rules_in_force(conn)} == {1, 2, 3, second.rule_id}
        assert conn.scalar(text("select count(*) from pricing_rules where target = 'JP'")) == 2


def test_the_last_global_rule_stays(engine: Engine) -> None:
    with engine.begin() as conn:
        with pytest.raises(InvalidInput, match="the last global pricing rule"):
            end_rule(conn, 1)
        with pytest.raises(NotFound, match="no pricing rule 99"):
            end_rule(conn, 99)
        end_rule(conn, 2)
    with engine.begin() as conn:
        assert {rule.rule_id for rule in rules_in_force(conn)} == {1, 3}


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (new_rule(RuleScope.GLOBAL, "*", markup_bp=-1), "markup_bp"),
        (new_rule(RuleScope.GLOBAL, "*", markup_bp=2_000_000), "markup_bp"),
        (new_rule(RuleScope.GLOBAL, "*", payment_fee_bp=10_000), "payment_fee_bp"),
        (new_rule(RuleScope.GLOBAL, "*", min_margin_micros=-5), "min_margin_micros"),
        (new_rule(RuleScope.GLOBAL, "JP"), "target"),
        (new_rule(RuleScope.DESTINATION, ""), "target"),
        (new_rule(RuleScope.DESTINATION, "*"), "target"),
        (new_rule(RuleScope.DATA_BAND, "1000"), "target"),
        (new_rule(RuleScope.DATA_BAND, "a-b"), "target"),
    ],
)
def test_a_rule_that_cannot_be_meant_names_its_field(engine: Engine, rule: PricingRule, field: str) -> None:
    with engine.begin() as conn, pytest.raises(InvalidInput) as refused:
        add_rule(conn, rule, note="", by="ops")
    assert refused.value.field == field


def test_the_newest_rate_of_each_currency_counts(engine: Engine) -> None:
    with engine.begin() as conn:
        assert newest_rates(conn).fetched_at is None
        save_rates(conn, Rates({"EUR": 1_080_000, "SEK": 95_000}, "2026-03-02"))
        save_rates(conn, Rates({"EUR": 1_090_000}, "2026-03-03"))
        save_rates(conn, Rates({"EUR": 1_070_000}, "2026-02-27"))
        state = newest_rates(conn)
    assert state.rates == Rates({"EUR": 1_090_000, "SEK": 95_000}, "2026-03-03")
    assert max(state.days.values()) == date(2026, 3, 3)


def test_a_repeated_quotation_overwrites_itself(engine: Engine) -> None:
    with engine.begin() as conn:
        for micros in (1_080_000, 1_081_000):
            assert save_rates(conn, Rates({"EUR": micros}, "2026-03-02")) == 1
        assert newest_rates(conn).rates.usd_micros == {"EUR": 1_081_000}
