"""The link in a mail: opens the order on our own page, and gives a token to nobody else."""

import base64
from uuid import UUID, uuid4

import pytest

from resources.db.order_links import is_mail_token, mail_token, order_link
from resources.db.vault import Vault

ONE, OTHER = uuid4(), uuid4()
VAULT = Vault({1: b"k" * 32}, b"h" * 32)
ROTATED = Vault({1: b"k" * 32, 2: b"o" * 32}, b"h" * 32)


def test_a_mail_token_opens_its_own_order_only() -> None:
    token = mail_token(ONE, VAULT)
    assert token == mail_token(ONE, VAULT)
    assert is_mail_token(token, ONE, VAULT)
    assert not is_mail_token(token, OTHER, VAULT)
    assert not is_mail_token(token, ONE, Vault({1: b"x" * 32}, b"h" * 32))


def test_a_mail_token_outlives_a_rotation_and_ends_with_its_key() -> None:
    old, new = mail_token(ONE, VAULT), mail_token(ONE, ROTATED)
    assert old != new
    assert is_mail_token(old, ONE, ROTATED)
    assert not is_mail_token(new, ONE, VAULT)
    assert not is_mail_token(old, ONE, Vault({2: b"o" * 32}, b"h" * 32))


@pytest.mark.parametrize("end", ["", "A", ".mail.", ".mail.AAAA", ".mail.é", ".mail." + "A" * 46, ".mail.=", "\x00"])
def test_what_is_no_mail_token_opens_nothing(end: str) -> None:
    assert not is_mail_token(mail_token(ONE, VAULT).partition(".")[0] + end, ONE, VAULT)
    assert not is_mail_token(end, ONE, VAULT)


def test_every_changed_character_spoils_a_mail_token() -> None:
    token = mail_token(ONE, VAULT)
    head, _, seal = token.rpartition(".")
    sealed = base64.urlsafe_b64decode(seal + "=" * (-len(seal) % 4))
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        spoilt = f"{head}.{base64.urlsafe_b64encode(bytes(changed)).decode().rstrip('=')}"
        assert not is_mail_token(spoilt, ONE, VAULT)


def test_only_our_own_page_of_the_order_gets_the_token() -> None:
    page = f"https://shop.example/orders/{ONE}"
    assert order_link(page, "cs_1", ONE, VAULT) == f"{page}#token={mail_token(ONE, VAULT)}"
    for strange in (
        "https://partner.example/thanks",
        f"https://partner.example/orders/{OTHER}",
        f"https://partner.example/?then=/orders/{ONE}",
        f"https://partner.example/#/orders/{ONE}",
        f"https://partner.example/x/orders/{ONE}",
    ):
        assert order_link(strange, "cs_1", ONE, VAULT) == strange


def test_the_session_is_filled_in_as_the_payment_service_does() -> None:
    given = "https://partner.example/thanks?s={CHECKOUT_SESSION_ID}"
    assert order_link(given, "cs_1", ONE, VAULT) == "https://partner.example/thanks?s=cs_1"
    assert order_link(given, None, UUID(int=1), VAULT) == "https://partner.example/thanks?s="
