"""The JSON of an order."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.shared import Price


class OrderItem(BaseModel):
    """What was bought, as it was sold."""

    package_id: str
    name: str
    quantity: int
    unit_price: Price


class Esim(BaseModel):
    """One eSIM of an order; activation data is there once it is delivered."""

    n: int
    status: Literal["unpaid", "preparing", "delivered", "failed", "refunded", "cancelled", "attention"]
    package_id: str
    name: str
    iccid: str | None = None
    lpa: str | None = Field(None, description="The activation string a QR code carries (SGP.22).")
    smdp_address: str | None = None
    activation_code: str | None = None
    confirmation_code: str | None = None
    apn: str | None = None
    qr_url: str | None = None
    install_url: str | None = Field(None, description="Opens the installation on the phone itself.")


class OrderEvent(BaseModel):
    """One step in the life of an order or of one of its eSIMs."""

    id: int
    at: datetime
    esim: int | None = Field(description="Which eSIM it is about; null for the whole order.")
    status: str
    message: str


class Order(BaseModel):
    """An order as its customer sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order_id": "0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d",
                    "display_id": "OID001",
                    "status": "completed",
                    "payment_status": "paid",
                    "amount_minor": 899,
                    "refunded_minor": 0,
                    "currency": "USD",
                    "created_at": "2026-11-21T06:00:00Z",
                    "paid_at": "2026-11-21T06:01:10Z",
                    "items": [
                        {
                            "package_id": "jp-5gb-30d",
                            "name": "Japan 5 GB, 30 days",
                            "quantity": 1,
                            "unit_price": {"amount_minor": 899, "currency": "USD"},
                        }
                    ],
                    "esims": [
                        {
                            "n": 1,
                            "status": "delivered",
                            "package_id": "jp-5gb-30d",
                            "name": "Japan 5 GB, 30 days",
                            "iccid": "8900000000000000000",
                            "lpa": "LPA:1$rsp.example.com$MATCHING-ID",
                            "smdp_address": "rsp.example.com",
                            "activation_code": "MATCHING-ID",
                            "confirmation_code": None,
                            "apn": "internet",
                            "qr_url": "https://shop.example/v1/orders/0193a1c2-5b7e-7c11-9d0e-2f6f0a1b2c3d/esims/1/qr.svg",
                            "install_url": "https://esimsetup.apple.com/esim_qrcode_provisioning?carddata=LPA:1$…",
                        }
                    ],
                    "events": [
                        {
                            "id": 7,
                            "at": "2026-11-21T06:01:10Z",
                            "esim": None,
                            "status": "paid",
                            "message": "Payment received.",
                        }
                    ],
                }
            ]
        }
    )

    order_id: str
    display_id: str
    status: Literal["pending", "paid", "processing", "completed", "failed", "refunded", "cancelled", "attention"]
    payment_status: str
    amount_minor: int
    refunded_minor: int
    currency: str
    created_at: datetime
    paid_at: datetime | None
    items: list[OrderItem]
    esims: list[Esim]
    events: list[OrderEvent]
