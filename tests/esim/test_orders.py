"""The state machine of orders and units: whatever happens in whatever order, only steps of the table are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import IllegalTransition
from esim.orders import (
    TRANSITIONS,
    UNIT_TRANSITIONS,
    OrderStatus,
    UnitStatus,
    advance,
    advance_unit,
    status_from_units,
)

orders = st.sampled_from(OrderStatus)
units = st.sampled_from(UnitStatus)
PAID_UNITS = st.lists(
    st.sampled_from([one for one in UnitStatus if one is not UnitStatus.UNPAID]), min_size=1, max_size=6
)


@given(orders, orders)
def test_same_state_is_a_no_op_and_others_follow_the_table(current: OrderStatus, target: OrderStatus) -> None:
    if current is target:
        assert advance(current, target) is False
    elif target in TRANSITIONS[current]:
        assert advance(current, target) is True
    else:
        with pytest.raises(IllegalTransition, match=f"{current} cannot become {target}"):
            advance(current, target)


@given(units, units)
def test_units_follow_their_table(current: UnitStatus, target: UnitStatus) -> None:
    if current is target:
        assert advance_unit(current, target) is False
    elif target in UNIT_TRANSITIONS[current]:
        assert advance_unit(current, target) is True
    else:
        with pytest.raises(IllegalTransition, match=f"{current} cannot become {target}"):
            advance_unit(current, target)


def test_every_state_has_a_row_and_refunded_is_the_end() -> None:
    assert set(TRANSITIONS) == set(OrderStatus)
    assert set(UNIT_TRANSITIONS) == set(UnitStatus)
    assert not TRANSITIONS[OrderStatus.REFUNDED]
    assert not UNIT_TRANSITIONS[UnitStatus.REFUNDED]


def test_an_open_purchase_is_never_refunded_nor_thrown_away() -> None:
    for open_state in (UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN):
        assert not UNIT_TRANSITIONS[open_state] & {UnitStatus.REFUNDED, UnitStatus.CANCELLED, UnitStatus.UNPAID}


@given(st.lists(units, max_size=30))
def test_a_unit_is_delivered_or_refunded_never_delivered_again(path: list[UnitStatus]) -> None:
    """Along any legal history a refunded unit stays refunded, and nothing is delivered twice."""
    current, delivered = UnitStatus.UNPAID, 0
    for target in path:
        if target is current or target not in UNIT_TRANSITIONS[current]:
            continue
        advance_unit(current, target)
        assert current is not UnitStatus.REFUNDED
        if current is UnitStatus.DELIVERED:
            assert target in {UnitStatus.REFUNDED, UnitStatus.ATTENTION}
        delivered += target is UnitStatus.DELIVERED
        current = target
    assert delivered == 0 or UnitStatus.WORKING in path or UnitStatus.ATTENTION in path


@given(PAID_UNITS)
def test_order_state_follows_its_units(states: list[UnitStatus]) -> None:
    status = status_from_units(states)
    if UnitStatus.ATTENTION in states:
        assert status is OrderStatus.ATTENTION
    elif set(states) & {UnitStatus.QUEUED, UnitStatus.WORKING, UnitStatus.PENDING, UnitStatus.UNKNOWN}:
        assert status is OrderStatus.PROCESSING
    elif UnitStatus.FAILED in states:
        assert status is OrderStatus.FAILED
    elif UnitStatus.DELIVERED in states:
        assert status is OrderStatus.COMPLETED
    else:
        assert status in {OrderStatus.REFUNDED, OrderStatus.CANCELLED}


@given(PAID_UNITS, PAID_UNITS)
def test_a_paid_order_can_follow_its_units_anywhere_but_out_of_a_refund(
    before: list[UnitStatus], after: list[UnitStatus]
) -> None:
    """Units move by their own table; where they can go in one step, the order's table has the step too."""
    legal = len(before) == len(after) and all(
        one is other or other in UNIT_TRANSITIONS[one] for one, other in zip(before, after, strict=True)
    )
    moved = sum(one is not other for one, other in zip(before, after, strict=False))
    if not legal or moved != 1 or UnitStatus.CANCELLED in {*before, *after}:
        return
    source, target = status_from_units(before), status_from_units(after)
    assert source is target or target in TRANSITIONS[source]
