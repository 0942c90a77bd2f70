"""The shop as a customer uses it, in a real browser: search, buy, pay, watch it turn green, scan."""

import re
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr
from sqlalchemy import Engine, select, update

from esim.orders import UnitStatus
from pipelines.hand_over import send_notices
from resources.db.notices import tell_of_changes
from resources.db.tables import outbox, packages
from resources.db.transitions import lock_order, lock_units
from resources.order_operations import OrderTools
from tests.api.deliver import PROFILE, work
from tests.api.serving import wait_until
from tests.browser.conftest import WholeShop


def buy(page: Page, email: str = "traveller@example.com", quantity: str = "1") -> None:
    page.goto("/?destination=JP")
    page.locator(".buy-button").first.click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("How many eSIMs").fill(quantity)
    page.get_by_role("button", name="Continue to payment").click()


def shoot(page: Page, shop: WholeShop, name: str) -> None:
    page.screenshot(path=shop.pictures / f"{name}.png", full_page=True)


def test_a_customer_searches_buys_and_scans(page: Page, whole_shop: WholeShop, engine: Engine) -> None:
    page.goto("/")
    shoot(page, whole_shop, "1-home")
    page.get_by_role("combobox").press_sequentially("jap")
    expect(page.get_by_role("option")).to_have_text(re.compile(r"^Japan.*\$2\.99$"))
    shoot(page, whole_shop, "2-typeahead")
    page.get_by_role("combobox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("eSIM for Japan")
    expect(page.locator(".plan")).to_have_count(5)
    shoot(page, whole_shop, "3-plans")

    buttons = page.locator(".buy-button")
    buttons.first.click()
    page.get_by_label("E-mail").fill("traveller@example.com")
    page.get_by_label("How many eSIMs").fill("2")
    expect(page.locator("#total")).to_have_text("$5.98")
    shoot(page, whole_shop, "4-checkout")
    page.get_by_role("button", name="Continue to payment").click()

    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    expect(page.locator("#total")).to_contain_text("5.98")
    page.locator("#pay").click()

    page.wait_for_url(f"{whole_shop.api.url}/orders/*")
    assert "token" not in page.url
    expect(page.locator("#headline")).to_have_text("Payment received")
    shoot(page, whole_shop, "5-paid")
    order_id = page.url.rpartition("/")[2]
    work(engine, order_id, UnitStatus.DELIVERED, whole_shop.api.shop.vault, only=1)
    expect(page.locator("#esim-1")).to_have_attribute("data-status", "delivered")
    expect(page.locator("#headline")).to_have_text("Getting your eSIM ready")
    work(engine, order_id, UnitStatus.DELIVERED, whole_shop.api.shop.vault, only=2)

    expect(page.locator("#headline")).to_have_text("Your eSIMs are ready")
    expect(page.locator(".progress li.done")).to_have_count(3)
    qr = page.locator("#esim-1 .qr")
    expect(qr).to_have_attribute("src", re.compile("^blob:"))
    wait_until(lambda: qr.evaluate("image => image.complete && image.naturalWidth > 0"), "the QR code is drawn")
    page.locator("#esim-1 summary").click()
    expect(page.locator("#esim-1 code").first).to_have_text(PROFILE.smdp_address)
    expect(page.locator("#esim-1 .install")).to_have_attribute("href", re.compile("^https://esimsetup.apple.com/"))
    shoot(page, whole_shop, "6-ready")

    page.reload()
    expect(page.locator("#headline")).to_have_text("Your eSIMs are ready")


def test_a_customer_at_the_other_name_of_this_machine_buys_and_comes_back_there(
    page: Page, whole_shop: WholeShop
) -> None:
    twin = whole_shop.api.url.replace("127.0.0.1", "localhost")
    page.goto(f"{twin}/?destination=JP")
    page.locator(".buy-button").first.click()
    page.get_by_label("E-mail").fill("traveller@example.com")
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    page.locator("#pay").click()
    page.wait_for_url(f"{twin}/orders/*")
    expect(page.locator("#headline")).to_have_text("Payment received")


def test_filters_change_the_plans_without_leaving_the_page(page: Page) -> None:
    page.goto("/?destination=JP")
    page.evaluate("window.stayed = true")
    page.locator("[name=min_data_mb]").select_option("10000")
    expect(page.locator(".plan")).to_have_count(3)
    page.locator("[name=sort]").select_option("data")
    expect(page.locator(".plan .amount").first).to_have_text("Unlimited")
    page.locator("select[name=currency]").select_option("EUR")
    expect(page.locator(".price").first).to_have_text("€29.79")
    assert page.evaluate("window.stayed") is True
    assert "sort=data" in page.url


def test_mistakes_are_named_beside_the_field(page: Page) -> None:
    buy(page, email="nobody")
    expect(page.locator("#email-error")).to_have_text("Enter your e-mail address.")
    page.get_by_label("E-mail").fill("a@b")
    page.get_by_role("button", name="Continue to payment").click()
    expect(page.locator("#email-error")).to_have_text("This does not look like an e-mail address.")
    page.get_by_label("E-mail").fill("traveller@example.com")
    page.get_by_label("How many eSIMs").fill("31")
    page.get_by_role("button", name="Continue to payment").click()
    expect(page.locator("#quantity-error")).to_have_text("Choose 1 to 30.")


def test_a_price_that_changed_meanwhile_is_shown_before_anything_is_ordered(
    page: Page, whole_shop: WholeShop, engine: Engine
) -> None:
    page.goto("/?destination=JP")
    with engine.begin() as conn:
        conn.execute(update(packages).values(prices={"USD": 349}).where(packages.c.package_id == "jp-1gb-7d"))
    page.locator(".buy-button").first.click()
    page.get_by_label("E-mail").fill("traveller@example.com")
    page.get_by_role("button", name="Continue to payment").click()
    expect(page.locator("#checkout-error")).to_contain_text("$3.49")
    expect(page.locator("#total")).to_have_text("$3.49")
    page.get_by_role("button", name="Continue to payment").click()
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    expect(page.locator("#total")).to_contain_text("3.49")


def test_a_customer_who_gives_up_comes_back_to_the_plans(page: Page, whole_shop: WholeShop) -> None:
    buy(page)
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    page.locator("#cancel").click()
    page.wait_for_url(f"{whole_shop.api.url}/?destination=JP")


def test_an_order_opens_with_a_token_in_the_fragment_which_then_disappears(
    browser: Browser, page: Page, whole_shop: WholeShop
) -> None:
    buy(page)
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    page.locator("#pay").click()
    page.wait_for_url(f"{whole_shop.api.url}/orders/*")
    address = page.url
    token = page.evaluate("sessionStorage.getItem(Object.keys(sessionStorage)[0])")
    other = browser.new_context()
    stranger = other.new_page()
    stranger.goto(address)
    expect(stranger.locator("#unlock")).to_be_visible()
    for wrong in ("nonsense", "nonsense…"):
        stranger.get_by_label("Order token").fill(wrong)
        stranger.locator("#unlock-error").evaluate("line => { line.textContent = ''; }")
        stranger.get_by_role("button", name="Open").click()
        expect(stranger.locator("#unlock-error")).to_have_text("This token does not open this order.")
    stranger.goto("about:blank")
    stranger.goto(f"{address}#token={token}")
    expect(stranger.locator("#headline")).to_have_text("Payment received")
    assert stranger.url == address
    other.close()


def test_the_link_in_the_mail_opens_the_order_in_any_browser(
    browser: Browser, page: Page, whole_shop: WholeShop, engine: Engine
) -> None:
    buy(page)
    page.wait_for_url(f"{whole_shop.sandbox}/stripe/pay/**")
    page.locator("#pay").click()
    page.wait_for_url(f"{whole_shop.api.url}/orders/*")
    expect(page.locator("#headline")).to_have_text("Payment received")
    order_id = UUID(page.url.rpartition("/")[2])
    work(engine, str(order_id), UnitStatus.DELIVERED, whole_shop.api.shop.vault)
    with engine.begin() as conn:
        tell_of_changes(conn, lock_order(conn, order_id), lock_units(conn, order_id), datetime.now(UTC))
    there = {
        "resend_api_url": f"{whole_shop.sandbox}/resend",
        "slack_webhook_url": SecretStr(f"{whole_shop.sandbox}/slack/webhook"),
    }
    tools = OrderTools(whole_shop.api.shop.settings.model_copy(update=there))
    assert send_notices(tools)[1] == 0
    tools.close()
    with engine.connect() as conn:
        assert "token" not in str(conn.execute(select(outbox)).all())
    (mail,) = httpx.get(f"{whole_shop.sandbox}/sandbox/mails").json()["mails"]
    (link,) = set(re.findall(r'href="(http[^"]+/orders/[^"]+)"', mail["html"]))
    assert link in mail["text"]
    elsewhere = browser.new_context()
    phone = elsewhere.new_page()
    phone.goto(link)
    expect(phone.locator("#headline")).to_have_text("Your eSIM is ready")
    expect(phone.locator("#esim-1 .qr")).to_have_attribute("src", re.compile("^blob:"))
    assert phone.url == page.url
    elsewhere.close()


@pytest.mark.parametrize("path", ["/", "/?destination=JP", "/?q=atlantis", "/docs"])
def test_pages_fit_a_small_phone(browser: Browser, whole_shop: WholeShop, path: str) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme="dark")
    phone = context.new_page()
    phone.goto(whole_shop.api.url + path)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 320
    shoot(phone, whole_shop, "phone" + re.sub(r"\W", "-", path))
    context.close()


def test_every_control_has_a_name_and_every_page_one_heading(page: Page) -> None:
    for path in ("/", "/?destination=JP", "/docs"):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, a[href], input:not([type=hidden]), select')].filter(e =>
                !e.textContent.trim() && !e.getAttribute('aria-label') && !(e.labels || []).length
            ).map(e => e.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("document.documentElement.lang") == "en"
