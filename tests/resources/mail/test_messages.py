"""The customer's mails: complete, escaped, and the same bytes for the same facts."""

import html
import re
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest

from esim.money import Money
from esim.purchase import EsimProfile
from resources.mail.messages import (
    DeliveredEsim,
    apple_install_url,
    order_confirmation,
    order_failed_refunded,
    payment_failed,
    qr_png,
)

PROFILE = EsimProfile(iccid="8900000000000000001", smdp_address="smdp.example.com", activation_code="K2-ABCDEF")
URL = "http://shop.test/orders/1?token=a&b=c"


def confirmation(*esims: DeliveredEsim) -> Any:
    return order_confirmation(to="customer@example.com", display_id="OID001", order_url=URL, esims=esims)


def test_confirmation_has_everything_needed_to_install() -> None:
    mail = confirmation(DeliveredEsim(1, "Japan 10 GB", PROFILE))
    assert mail.subject == "Your eSIM is ready (order OID001)"
    for body in (html.unescape(mail.html), mail.text):
        for needed in ("Japan 10 GB", "smdp.example.com", "K2-ABCDEF", PROFILE.iccid, URL, PROFILE.lpa):
            assert needed in body
        assert apple_install_url(PROFILE.lpa) in body
        assert "iphone" in body.lower()
        assert "android" in body.lower()
    assert '<img src="cid:esim-1-qr"' in mail.html
    assert [image.content_id for image in mail.images] == ["esim-1-qr"]
    assert "Confirmation code" not in mail.html + mail.text


def test_every_esim_of_an_order_has_its_own_code() -> None:
    second = replace(PROFILE, activation_code="K2-OTHER", confirmation_code="1234", apn="internet")
    mail = confirmation(DeliveredEsim(1, "Japan 10 GB", PROFILE), DeliveredEsim(3, "Japan 10 GB", second))
    assert mail.subject == "Your 2 eSIMs are ready (order OID001)"
    assert [image.content_id for image in mail.images] == ["esim-1-qr", "esim-3-qr"]
    assert mail.images[0].content != mail.images[1].content
    assert all(f"cid:{image.content_id}" in mail.html for image in mail.images)
    for body in (mail.html, mail.text):
        assert "1234" in body
        assert "internet" in body
        assert second.lpa in body


def test_same_facts_give_the_same_mail() -> None:
    assert confirmation(DeliveredEsim(1, "Japan", PROFILE)) == confirmation(DeliveredEsim(1, "Japan", PROFILE))


def test_values_are_escaped_and_cannot_start_a_line() -> None:
    evil = DeliveredEsim(1, "<script>alert(1)</script>\nBcc: x", replace(PROFILE, activation_code='"><img src=x>'))
    mail = confirmation(evil)
    assert "<script>" not in mail.html
    assert "<img src=x>" not in mail.html
    assert "\nBcc:" not in mail.text
    assert (
        "\n"
        not in order_failed_refunded(
            to="c@example.com", display_id="OID\n1", order_url=URL, refunded=Money(1, "USD"), packages=["x"]
        ).subject
    )


def test_mails_do_not_show_what_they_hold() -> None:
    mail = confirmation(DeliveredEsim(1, "Japan", PROFILE))
    shown = repr(mail) + repr(DeliveredEsim(1, "Japan", PROFILE))
    assert not re.search(r"customer@|K2-ABCDEF|8900000|smdp\.example", shown)


@pytest.mark.parametrize(("delivered", "words"), [(0, None), (1, "other eSIM"), (2, "other 2 eSIMs")])
def test_refund_names_amount_and_what_failed(delivered: int, words: str | None) -> None:
    mail = order_failed_refunded(
        to="customer@example.com",
        display_id="OID001",
        order_url=URL,
        refunded=Money(1999, "USD"),
        packages=["Japan & Korea 10 GB"],
        delivered=delivered,
    )
    assert "19.99 USD" in mail.subject
    assert "Japan &amp; Korea 10 GB" in mail.html
    assert "Japan & Korea 10 GB" in mail.text
    for body in (" ".join(mail.html.split()), " ".join(mail.text.split())):
        assert "sorry" in body
        assert "19.99 USD" in body
        assert (words or "as before") in body if words else "as before" not in body


def test_failed_payment_says_nothing_was_charged() -> None:
    mail = payment_failed(to="customer@example.com", display_id="OID001", shop_url="http://shop.test/")
    for body in (mail.html, mail.text):
        assert "Nothing was charged" in body
        assert "http://shop.test/" in body
    assert mail.images == ()


def test_install_link_keeps_the_activation_string_readable_to_apple() -> None:
    assert apple_install_url("LPA:1$smdp.example.com$K2 A&B").endswith("?carddata=LPA:1$smdp.example.com$K2%20A%26B")


def test_qr_is_a_png_with_whole_dark_and_light_modules() -> None:
    png = qr_png(PROFILE.lpa)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width == height
    assert width % 6 == 0
    data = b"".join(chunk for kind, chunk in chunks(png) if kind == b"IDAT")
    assert zlib.decompress(data)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(png):
        size = struct.unpack(">I", png[at : at + 4])[0]
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + size]))
        at += 12 + size
    return found
