"""The order page when the line is bad and the shop is busy: nothing freezes, nothing stays missing."""

import re
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import Engine, func, select

from esim.orders import UnitStatus
from resources.db.tables import order_events
from tests.api.deliver import work
from tests.browser.conftest import WholeShop
from tests.browser.test_shop_in_browser import buy

BUSY = {"status": 429, "headers": {"Retry-After": "1"}, "content_type": "application/problem+json", "body": "{}"}


def busy(times: int) -> Callable[[Route], None]:
    """Answer so many times like a busy shop, then let the shop answer."""
    left = [times]

    def handle(route: Route) -> None:
        left[0] -= 1
        if left[0] >= 0:
            route.fulfill(**BUSY)
        else:
            route.continue_()

    return handle


@pytest.fixture
def paid(page: Page, whole_shop: WholeShop) -> str:
    """The id of a paid order that the page shows."""
    buy(page)
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    page.locator("#pay").click()
    page.wait_for_url(f"{whole_shop.api.url}/orders/*")
    expect(page.locator("#headline")).to_have_text("Payment received")
    return page.url.rpartition("/")[2]


def deliver(engine: Engine, shop: WholeShop, order_id: str) -> None:
    work(engine, order_id, UnitStatus.DELIVERED, shop.api.shop.vault)


def expect_ready(page: Page) -> None:
    expect(page.locator("#headline")).to_have_text("Your eSIM is ready")
    expect(page.locator("#esim-1 .qr")).to_have_attribute("src", re.compile("^blob:"))


def test_news_that_meets_a_busy_shop_is_shown_later(
    page: Page, whole_shop: WholeShop, engine: Engine, paid: str
) -> None:
    page.route(re.compile(f"/v1/orders/{paid}$"), busy(3))
    deliver(engine, whole_shop, paid)
    expect_ready(page)


def test_a_qr_code_that_meets_a_busy_shop_is_drawn_later(
    page: Page, whole_shop: WholeShop, engine: Engine, paid: str
) -> None:
    page.route("**/qr.svg", busy(2))
    deliver(engine, whole_shop, paid)
    expect_ready(page)


def test_an_order_opened_while_the_shop_is_busy_shows_later(page: Page, paid: str) -> None:
    page.route(re.compile(f"/v1/orders/{paid}$"), busy(2))
    page.reload()
    expect(page.locator("#headline")).to_have_text("Payment received")


def test_without_a_stream_the_page_asks_now_and_then(
    page: Page, whole_shop: WholeShop, engine: Engine, paid: str
) -> None:
    page.route("**/events", busy(10_000))
    page.reload()
    expect(page.locator("#headline")).to_have_text("Payment received")
    deliver(engine, whole_shop, paid)
    expect_ready(page)


def test_a_stream_begins_after_what_the_page_shows(page: Page, engine: Engine, paid: str) -> None:
    with page.expect_request("**/events") as asked:
        page.reload()
    with engine.connect() as conn:
        query = select(func.max(order_events.c.event_id)).where(order_events.c.order_id == UUID(paid))
        newest = conn.scalar(query)
    assert int(asked.value.headers["last-event-id"]) == newest


def test_a_refused_payment_can_be_tried_again_at_once(browser: Browser, whole_shop: WholeShop) -> None:
    context = browser.new_context(base_url=whole_shop.api.url)
    page = context.new_page()
    fault = {"kind": "session_error", "times": 1, "params": {"when": "before", "status": 400}}
    httpx.put(f"{whole_shop.sandbox}/sandbox/stripe/faults", json=fault).raise_for_status()
    buy(page)
    expect(page.locator("#checkout-error")).to_contain_text("Nothing was charged")
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    context.close()


def test_suggestions_come_back_after_a_broken_line(browser: Browser, whole_shop: WholeShop) -> None:
    context = browser.new_context(base_url=whole_shop.api.url)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/v1/destinations*", lambda route: route.abort(), times=1)
    with page.expect_event("requestfailed"):
        page.goto("/")
    page.get_by_role("combobox").press_sequentially("jap")
    expect(page.get_by_role("option")).to_have_count(1)
    assert errors == []
    context.close()


def test_an_order_that_cannot_be_reached_is_asked_for_again(
    browser: Browser, page: Page, whole_shop: WholeShop, paid: str
) -> None:
    token = page.evaluate("sessionStorage.getItem(Object.keys(sessionStorage)[0])")
    context = browser.new_context()
    phone = context.new_page()
    errors: list[str] = []
    phone.on("pageerror", lambda error: errors.append(str(error)))
    phone.route(re.compile(f"/v1/orders/{paid}$"), lambda route: route.abort(), times=1)
    phone.goto(f"{whole_shop.api.url}/orders/{paid}#token={token}")
    expect(phone.locator("#headline")).to_have_text("Payment received")
    assert errors == []
    context.close()


def test_only_the_number_of_plans_is_announced(page: Page) -> None:
    page.goto("/?destination=JP")
    expect(page.get_by_role("status")).to_have_text("5 plans")
    expect(page.locator("main [aria-live]")).to_have_count(0)
    page.evaluate("document.querySelector('[role=status]').dataset.kept = 'yes'")
    page.locator("[name=min_data_mb]").select_option("10000")
    expect(page.get_by_role("status")).to_have_text("3 plans")
    expect(page.get_by_role("status")).to_have_attribute("data-kept", "yes")
