"""How often the payment service is asked about one order: remembered in this process, whoever asks."""

from collections import OrderedDict
from datetime import datetime, timedelta
from threading import Lock
from uuid import UUID

ASK_EVERY = timedelta(seconds=10)
_REMEMBERED = 10_000


class Curiosity:
    """Remembers when the payment service was last asked about an order, in this process."""

    def __init__(self) -> None:
        self._asked: OrderedDict[UUID, datetime] = OrderedDict()
        self._lock = Lock()

    def may_ask(self, order_id: UUID, now: datetime) -> bool:
        """Return whether it is time to ask again, and note that it was asked."""
        with self._lock:
            last = self._asked.get(order_id)
            if last is not None and now - last < ASK_EVERY:
                return False
            self._asked[order_id] = now
            self._asked.move_to_end(order_id)
            while len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
            return True
