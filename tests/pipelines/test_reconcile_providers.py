"""Provider statements against our purchases: each disagreement is found, told once, and closes when it is gone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text

from esim.errors import ProviderUnavailable
from esim.money import Cost
from esim.ports import Capabilities
from esim.purchase import ErrorType, Outcome, ProviderPurchase, PurchaseRequest, Rejected, SaleState
from pipelines.reconcile_providers import ProviderReport, reconcile_providers
from resources.db.audit import Operator
from resources.db.findings import accept_finding, open_findings
from tests.pipelines.actors import ScriptedProvider, sells_without_answer
from tests.pipelines.conftest import Shop
from tests.resources.db.shop import NOW, paid_order, unit_states

Rows = Callable[[str], list[dict[str, object]]]
LISTS = Capabilities(reference_lookup=True, settle_seconds=0.0, lists_purchases=True)


@pytest.fixture
def shop(shop: Shop) -> Shop:
    shop.cheap.capabilities = LISTS
    shop.dear.capabilities = replace(LISTS, lists_purchases=False)
    return shop


def line(provider: ScriptedProvider, serial: int = 1, **changes: object) -> ProviderPurchase:
    """What a provider lists of the eSIM it sold as number `serial`."""
    sold = [(reference, esim) for reference, esims in provider.sold.items() for esim in esims]
    reference, esim = sold[serial - 1] if serial <= len(sold) else ("", None)
    fields: dict[str, object] = {
        "provider_order_id": f"{provider.slug}-order-{serial}",
        "bought_at": NOW,
        "state": SaleState.SOLD,
        "reference": reference,
        "package_id": "plan-1",
        "cost": Cost.parse("2.00", "USD"),
        "iccids": (esim.iccid,) if esim else (),
    }
    return ProviderPurchase(**fields | changes)  # type: ignore[arg-type]  # fields by name


def look(shop: Shop, days: float = 1) -> ProviderReport:
    """Look at the statement of the cheap provider, so many days later."""
    shop.clock.advance(days=days)
    return reconcile_providers(shop.tools)[0]


def kinds(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return [finding.kind for finding in open_findings(conn)]


def told(rows: Rows, kind: str) -> int:
    return len(rows(f"select 1 from outbox where key like 'slack:finding:%:{kind}:%'"))


def deliver(shop: Shop) -> None:
    paid_order(shop.engine)
    shop.drain()


def test_a_statement_that_agrees_has_no_findings(shop: Shop, engine: Engine, rows: Rows) -> None:
    deliver(shop)
    shop.cheap.statement = [line(shop.cheap)]
    report = look(shop)
    assert (report.lines, report.trouble, kinds(engine)) == (1, "", [])
    (day,) = report.days
    assert (day.theirs, day.ours, day.their_cost, day.our_cost) == (1, 1, Decimal(2), Decimal(2))
    assert "8900airalo" not in str(rows("select * from statement_lines"))


def test_an_order_is_known_by_its_number_or_its_esim_alone(shop: Shop, engine: Engine) -> None:
    paid_order(engine, units=2)
    shop.drain()
    by_number = line(shop.cheap, 1, reference="", iccids=())
    by_esim = line(shop.cheap, 2, reference="", provider_order_id="another-number")
    shop.cheap.statement = [by_number, by_esim]
    look(shop)
    assert kinds(engine) == []


def test_a_purchase_nobody_here_made_is_told_once_and_closes_when_it_is_given_back(
    shop: Shop, engine: Engine, rows: Rows
) -> None:
    stranger = line(shop.cheap, 7, reference="", package_id="another-plan")
    shop.cheap.statement = [stranger]
    look(shop)
    look(shop)
    assert kinds(engine) == ["unmatched_purchase"]
    assert told(rows, "unmatched_purchase") == 1
    shop.cheap.statement = [replace(stranger, state=SaleState.GIVEN_BACK)]
    look(shop)
    assert kinds(engine) == []


def test_a_finding_that_comes_back_is_told_again(shop: Shop, engine: Engine, rows: Rows) -> None:
    stranger = line(shop.cheap, 7, reference="", package_id="another-plan")
    for state in (SaleState.SOLD, SaleState.GIVEN_BACK, SaleState.SOLD):
        shop.cheap.statement = [replace(stranger, state=state)]
        look(shop)
    assert kinds(engine) == ["unmatched_purchase"]
    assert told(rows, "unmatched_purchase") == 2


def refused_after_all(provider: ScriptedProvider, request: PurchaseRequest) -> Outcome:
    """Sell, and claim not to have sold."""
    provider.sell(request)
    return Rejected(ErrorType.OUT_OF_STOCK, "sold out")


@pytest.mark.parametrize("reference_is_listed", [True, False])
def test_a_closed_attempt_that_bought_after_all_goes_to_stock(
    shop: Shop, engine: Engine, rows: Rows, reference_is_listed: bool
) -> None:
    shop.cheap.script.append(refused_after_all)
    order_id = paid_order(engine)
    shop.drain()
    assert unit_states(engine, order_id) == ["delivered"]
    listed = line(shop.cheap) if reference_is_listed else line(shop.cheap, reference="")
    shop.cheap.statement = [replace(listed, bought_at=NOW + timedelta(seconds=40))]
    report = look(shop)
    assert (report.looked_up, report.kept_as_stock) == (1, 1)
    assert rows("select provider, provider_order_id, state from stock_esims") == [
        {"provider": "airalo", "provider_order_id": "airalo-order-1", "state": "stock"}
    ]
    assert len(rows("select 1 from ledger_entries where posting_key like 'stock:%'")) == 2
    assert look(shop).kept_as_stock == 0
    assert unit_states(engine, order_id) == ["delivered"]


def test_what_another_unit_got_is_never_taken_for_a_closed_attempts(shop: Shop, engine: Engine, rows: Rows) -> None:
    shop.cheap.script.append(lambda _provider, _request: Rejected(ErrorType.PROVIDER_API_ERROR, "an error"))
    paid_order(engine)
    shop.drain()
    deliver(shop)
    shop.cheap.statement = [line(shop.cheap, reference="", provider_order_id="listed-otherwise")]
    look(shop)
    assert rows("select 1 from stock_esims") == []
    assert kinds(engine) == []


def test_an_order_that_cannot_be_read_is_not_kept(shop: Shop, engine: Engine, rows: Rows) -> None:
    shop.cheap.script.append(lambda _provider, _request: Rejected(ErrorType.OUT_OF_STOCK, "sold out"))
    paid_order(engine)
    shop.drain()
    (attempt,) = rows("select reference from purchase_attempts where provider = 'airalo'")
    shop.cheap.statement = [line(shop.cheap, reference=attempt["reference"])]
    shop.cheap.on_status = lambda _provider, _request: Rejected(ErrorType.NOT_BOUGHT, "no such order")
    look(shop)
    assert kinds(engine) == ["purchase_not_kept"]


def test_an_open_purchase_is_left_to_its_look_ups(shop: Shop, engine: Engine) -> None:
    shop.cheap.script.append(sells_without_answer)
    order_id = paid_order(engine)
    shop.drain(max_seconds=0.3)
    state = unit_states(engine, order_id)
    shop.cheap.statement = [line(shop.cheap)]
    look(shop)
    assert unit_states(engine, order_id) == state
    assert kinds(engine) == []


def test_a_delivery_the_provider_does_not_list_is_found_until_it_does(shop: Shop, engine: Engine, rows: Rows) -> None:
    deliver(shop)
    look(shop)
    assert kinds(engine) == ["delivered_not_listed"]
    look(shop, days=5)  # outside of the days that are read
    assert kinds(engine) == ["delivered_not_listed"]
    assert told(rows, "delivered_not_listed") == 1
    shop.cheap.statement = [line(shop.cheap, bought_at=shop.clock())]
    look(shop)
    assert kinds(engine) == []


def test_a_delivery_of_the_last_hour_need_not_be_listed_yet(shop: Shop, engine: Engine) -> None:
    deliver(shop)
    look(shop, days=0.01)
    assert kinds(engine) == []


def test_another_cost_is_found(shop: Shop, engine: Engine, rows: Rows) -> None:
    deliver(shop)
    shop.cheap.statement = [line(shop.cheap, cost=Cost.parse("2.50", "USD"))]
    look(shop)
    assert kinds(engine) == ["cost_differs"]
    (found,) = rows("select details from reconciliation_findings")
    assert isinstance(found["details"], dict)
    assert (found["details"]["cost"], found["details"]["booked"]) == ("2.5", "2")
    shop.cheap.statement = [line(shop.cheap)]
    look(shop)
    assert kinds(engine) == []


def test_two_purchases_for_one_unit_are_the_loudest_finding(shop: Shop, engine: Engine, rows: Rows) -> None:
    deliver(shop)
    twin = line(shop.cheap, provider_order_id="airalo-order-99", iccids=("8900airalo000099",))
    shop.cheap.statement = [line(shop.cheap), twin]
    look(shop)
    assert kinds(engine) == ["bought_twice"]
    (note,) = rows("select payload ->> 'text' as text from outbox where key like 'slack:finding:%:bought_twice:%'")
    assert str(note["text"]).startswith(":rotating_light: TWO PURCHASES")
    shop.cheap.statement = [line(shop.cheap), replace(twin, state=SaleState.GIVEN_BACK)]
    look(shop)
    assert kinds(engine) == []


def test_one_order_of_two_esims_is_two_purchases(shop: Shop, engine: Engine) -> None:
    deliver(shop)
    shop.cheap.statement = [line(shop.cheap, quantity=2)]
    look(shop)
    assert kinds(engine) == ["bought_twice"]


def test_an_esim_given_back_there_and_delivered_here_is_found(shop: Shop, engine: Engine) -> None:
    deliver(shop)
    shop.cheap.statement = [line(shop.cheap, state=SaleState.GIVEN_BACK)]
    look(shop)
    assert kinds(engine) == ["given_back_there"]


def test_a_provider_that_breaks_off_keeps_its_findings_and_its_mark(shop: Shop, engine: Engine, rows: Rows) -> None:
    deliver(shop)
    look(shop)
    marks = "select until from reconciliation_marks where name = 'providers:airalo'"
    before = rows(marks)
    shop.cheap.down = ProviderUnavailable("down")
    shop.cheap.statement = [line(shop.cheap)]
    report = look(shop)
    assert report.trouble
    assert sorted(kinds(engine)) == ["delivered_not_listed", "statement_unread"]
    assert rows(marks) == before
    shop.cheap.down = None
    look(shop)
    assert kinds(engine) == []


def test_a_balance_that_fell_by_more_than_was_booked_is_found(shop: Shop, engine: Engine, rows: Rows) -> None:
    balance(shop, "100")
    assert balance(shop, "90").balance.startswith("10 USD more spent")
    assert kinds(engine) == ["balance_differs"]
    (note,) = rows("select payload ->> 'text' as text from outbox where key like 'slack:finding:%:balance_differs:%'")
    assert "has no full statement" in str(note["text"])
    balance(shop, "100")  # a hold that expired
    assert kinds(engine) == []


def test_a_balance_that_fell_by_what_was_booked_agrees(shop: Shop, engine: Engine) -> None:
    balance(shop, "100")
    shop.cheap.script.append(lambda _provider, _request: Rejected(ErrorType.OUT_OF_STOCK, "sold out"))
    paid_order(engine, now=shop.clock())
    shop.drain()
    assert shop.dear.purchases == 1
    assert balance(shop, "97").balance == "agrees: 3 USD spent and booked"
    assert balance(shop, "597").balance.startswith("500 USD came in")
    assert kinds(engine) == []


def test_a_balance_is_not_compared_while_a_purchase_is_open(shop: Shop, engine: Engine) -> None:
    balance(shop, "100")
    balance(shop, "90")
    with engine.begin() as conn:
        paid_order(engine, now=shop.clock())
        shop.drain()
        conn.execute(text("update purchase_attempts set provider = 'esim_go', state = 'unknown'"))
    assert "cannot be compared" in balance(shop, "90").balance
    assert kinds(engine)[0] == "balance_differs"


def test_an_accepted_finding_is_quiet_and_hides_nothing_that_comes_after_it(shop: Shop, engine: Engine) -> None:
    balance(shop, "100")
    balance(shop, "90")
    with engine.begin() as conn:
        (found,) = open_findings(conn)
        accept_finding(conn, found.finding_id, Operator("anna", "bought in the portal", shop.clock()))
    assert kinds(engine) == []
    assert balance(shop, "90").balance.startswith("first reading")
    assert balance(shop, "80").balance.startswith("10 USD more spent")
    assert kinds(engine) == ["balance_differs"]


def balance(shop: Shop, amount: str) -> ProviderReport:
    """Look at the provider without a list, at this balance, a day later."""
    shop.dear.wallet = Cost.parse(amount, "USD")
    shop.clock.advance(days=1)
    return reconcile_providers(shop.tools)[1]


def test_the_first_look_goes_back_a_month_and_the_next_two_days(shop: Shop) -> None:
    asked: list[datetime] = []
    lists = shop.cheap.purchases_since
    shop.cheap.purchases_since = lambda since: (asked.append(since), lists(since))[1]  # type: ignore[method-assign]
    reconcile_providers(shop.tools)
    look(shop, days=1)
    assert asked == [NOW - timedelta(days=30), NOW - timedelta(days=2)]
