"""What an error of the store says reaches logs and Dagster's events: never the row it was about."""

import traceback

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from resources.db.databases import at_once
from tests.resources.db.shop import paid_order


@pytest.mark.parametrize("way", [lambda engine: engine, at_once])
def test_an_error_names_the_rule_and_not_the_customer(engine: Engine, way: type) -> None:
    order_id = paid_order(engine)
    with pytest.raises(IntegrityError) as caught, way(engine).begin() as conn:
        conn.execute(text("update orders set refunded_minor = amount_minor + 1 where order_id = :id"), {"id": order_id})
    told = "".join(traceback.format_exception(caught.value))
    assert "ck_orders_refund_within_amount" in str(caught.value)
    assert "customer@numnaroad.test" not in told
    assert "Failing row" not in told
