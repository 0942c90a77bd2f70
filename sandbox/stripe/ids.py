"""Object ids with Stripe's prefixes.

They are random, never drawn from the sandbox's seed: a restarted sandbox that dealt the same event ids again would
make a shop with a memory discard real payments as duplicates.
"""

import secrets
import string

ALPHABET = string.ascii_letters + string.digits


def _token(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def session_id() -> str:
    """A test-mode Checkout Session id."""
    return f"cs_test_a1{_token(56)}"


def new_id(prefix: str) -> str:
    """An id of a payment object, such as `pi_3...` or `evt_1...`."""
    version = "3" if prefix in {"pi", "ch", "re", "txn", "pyr"} else "1"
    return f"{prefix}_{version}{_token(23)}"


def request_id() -> str:
    """The value of a `Request-Id` header."""
    return f"req_{_token(14)}"
