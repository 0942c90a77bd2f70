"""Operators at work in a test: after every action the books are looked through."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, text

from esim.errors import Refused
from resources.db.audit import Operator
from resources.db.operator_actions import Done
from resources.operator_desk import OperatorDesk
from tests.pipelines.conftest import Shop

Action = Callable[[OperatorDesk, Operator], Done]

_UNBALANCED = (
    "select posting_key from ledger_entries group by posting_key having sum(amount_micros) <> 0"
    " union all select order_id::text from ledger_entries group by order_id having sum(amount_micros) <> 0"
)
_OVERPAID = """
    select o.display_id from orders o join refunds r on r.order_id = o.order_id and r.payment_intent = o.payment_intent
    where r.state not in ('failed', 'called_off')
    group by o.order_id having sum(r.amount_minor) > o.amount_minor or o.refunded_minor > o.amount_minor
"""
_UNEXPLAINED = """
    select e.order_id, e.n from esims e where e.status <> (
        select v.to_status from order_events v where v.order_id = e.order_id and v.esim_n = e.n
        order by v.event_id desc limit 1)
"""


def check_books(engine: Engine) -> None:
    """The ledger sums to zero, no more goes back than came in, and every unit's state is explained by an event."""
    with engine.connect() as conn:
        for statement in (_UNBALANCED, _OVERPAID, _UNEXPLAINED):
            assert conn.execute(text(statement)).all() == [], statement


@dataclass
class Counter:
    """Where an operator called Mia works."""

    shop: Shop

    def who(self, reason: str = "the customer asked") -> Operator:
        return Operator("mia", reason, self.shop.clock.now)

    def try_out(self, action: Action) -> Done:
        """Preview an action, which must change nothing."""
        before = self._state()
        done = action(OperatorDesk(self.shop.tools, preview=True), self.who())
        assert self._state() == before
        return done

    def do(self, action: Action) -> Done:
        """Preview an action, do it, and do it again: what is done is what was shown, and once is enough."""
        shown = self.try_out(action)
        done = action(OperatorDesk(self.shop.tools, agreed=shown.changes), self.who())
        check_books(self.shop.engine)
        assert (shown.changes != ()) == (done.changes != ())
        with self.shop.engine.connect() as conn:
            audited = conn.execute(text("select count(*) from audit_events")).scalar()
        assert self.once(action).changes == (), "a second time there is nothing to do"
        with self.shop.engine.connect() as conn:
            assert conn.execute(text("select count(*) from audit_events")).scalar() == audited
        return done

    def once(self, action: Action) -> Done:
        """Do an action."""
        done = action(OperatorDesk(self.shop.tools), self.who())
        check_books(self.shop.engine)
        return done

    def refused(self, action: Action, message: str) -> None:
        """An action must be refused with these words, and change nothing."""
        before = self._state()
        for preview in (True, False):
            with pytest.raises(Refused, match=message):
                action(OperatorDesk(self.shop.tools, preview=preview), self.who())
        assert self._state() == before
        check_books(self.shop.engine)

    def _state(self) -> list[object]:
        tables = ("orders", "esims", "purchase_attempts", "refunds", "ledger_entries", "outbox", "order_events")
        with self.shop.engine.connect() as conn:
            return [
                conn.execute(text(f"select md5(string_agg(t::text, '|' order by t::text)) from {name} t")).scalar()
                for name in (*tables, "audit_events", "stock_esims", "providers")
            ]
