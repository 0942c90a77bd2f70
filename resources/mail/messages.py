"""The mails a customer gets, rendered from `resources/mail/templates`: confirmation, refund, failed payment.

Promises: every value is escaped, and the same facts give the same bytes, so that a carrier recognises a repeat by its
key. What goes in is personal; nothing here logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from esim.money import Money
from esim.ports import InlineImage, Mail
from esim.purchase import EsimProfile

APPLE_SETUP = "https://esimsetup.apple.com/esim_qrcode_provisioning?carddata="
QR_SCALE = 6
QR_MASK = 3


@dataclass(frozen=True, slots=True)
class DeliveredEsim:
    """One eSIM to hand over; `n` counts within the order."""

    n: int
    package_name: str
    profile: EsimProfile = field(repr=False)


def order_confirmation(*, to: str, display_id: str, order_url: str, esims: Sequence[DeliveredEsim]) -> Mail:
    """Hand over eSIMs: per eSIM its QR code, manual codes and install link, then how to install."""
    cards = [_card(esim) for esim in esims]
    many = "eSIM is" if len(esims) == 1 else f"{len(esims)} eSIMs are"
    images = tuple(_qr_image(esim) for esim in esims)
    values = {"display_id": display_id, "order_url": order_url, "cards": cards}
    return _mail("order_confirmation", to, f"Your {many} ready (order {display_id})", values, images)


def order_failed_refunded(
    *,
    to: str,
    display_id: str,
    order_url: str,
    refunded: Money,
    packages: Sequence[str],
    returned: Sequence[str] = (),
    delivered: int = 0,
) -> Mail:
    """Apologise for what could not be delivered and name what was paid back; `delivered` eSIMs arrived all the same.

    `returned` were delivered, and paid back because somebody asked for it.
    """
    values = {
        "display_id": display_id,
        "order_url": order_url,
        "refunded": str(refunded),
        "packages": list(packages),
        "returned": list(returned),
        "delivered": delivered,
    }
    return _mail("order_failed_refunded", to, f"We refunded {refunded} (order {display_id})", values)


def payment_failed(*, to: str, display_id: str, shop_url: str) -> Mail:
    """Tell that a payment did not go through and that nothing was charged."""
    values = {"display_id": display_id, "shop_url": shop_url}
    return _mail("payment_failed", to, f"Your payment did not go through (order {display_id})", values)


def apple_install_url(lpa: str) -> str:
    """Apple's universal link that installs an eSIM on the iPhone it is opened on (iOS 17.4 and later)."""
    return APPLE_SETUP + quote(lpa, safe=":$")


def qr_png(lpa: str) -> bytes:
    """The QR code of an activation string as a PNG."""
    picture = BytesIO()
    # Any mask can be read; choosing the best of eight would take five times as long, which a flash sale feels.
    segno.make(lpa, error="m", micro=False, mask=QR_MASK).save(picture, kind="png", scale=QR_SCALE, border=4)
    return picture.getvalue()


def _card(esim: DeliveredEsim) -> dict[str, Any]:
    profile = esim.profile
    return {
        "n": esim.n,
        "package_name": esim.package_name,
        "iccid": profile.iccid,
        "smdp_address": profile.smdp_address,
        "activation_code": profile.activation_code,
        "confirmation_code": profile.confirmation_code,
        "apn": profile.apn,
        "lpa": profile.lpa,
        "install_url": apple_install_url(profile.lpa),
        "image": _content_id(esim),
    }


def _content_id(esim: DeliveredEsim) -> str:
    return f"esim-{esim.n}-qr"


def _qr_image(esim: DeliveredEsim) -> InlineImage:
    return InlineImage(_content_id(esim), f"esim-{esim.n}.png", qr_png(esim.profile.lpa))


def _mail(template: str, to: str, subject: str, values: dict[str, Any], images: tuple[InlineImage, ...] = ()) -> Mail:
    templates = _templates()
    html = templates.get_template(f"{template}.html").render(**values, subject=subject)
    text = templates.get_template(f"{template}.txt").render(**values, subject=subject)
    return Mail(to=to, subject=" ".join(subject.split()), html=html, text=text, images=images)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["line"] = lambda value: " ".join(str(value).split())
    return environment
