"""Reading of request parameters with Stripe's refusals: missing, unknown, of the wrong type, too long, not a URL."""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from sandbox.stripe.errors import StripeError

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
MAX_METADATA_KEYS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 50, 40, 500


class Params:
    """One level of decoded parameters; `path` is where it hangs, as Stripe names it (`line_items[0][price_data]`)."""

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def name_of(self, key: str) -> str:
        """The parameter's full name."""
        return f"{self._path}[{key}]" if self._path else key

    def allow(self, known: Iterable[str]) -> "Params":
        """Refuse parameters that the endpoint does not have."""
        for key in self._values:
            if key not in set(known):
                name = self.name_of(key)
                raise StripeError.invalid(f"Received unknown parameter: {name}", param=name, code="parameter_unknown")
        return self

    def has(self, key: str) -> bool:
        """Whether the parameter was given with a value (an empty one unsets)."""
        return self._values.get(key) not in (None, "", {}, [])

    def raw(self, key: str) -> Any:
        """The value as decoded: a string, list or dict."""
        return self._values.get(key)

    def require(self, key: str) -> None:
        """Refuse the request when the parameter is missing."""
        if not self.has(key):
            name = self.name_of(key)
            raise StripeError.invalid(f"Missing required param: {name}.", param=name, code="parameter_missing")

    def text(self, key: str, *, longest: int = 5000) -> str | None:
        """A string, or None when it was not given."""
        value = self._values.get(key)
        if value is None or value == "":
            return None
        name = self.name_of(key)
        if not isinstance(value, str):
            raise StripeError.invalid(f"Invalid string: {value}", param=name)
        if len(value) > longest:
            message = f"Invalid string: must be at most {longest} characters"
            raise StripeError.invalid(message, param=name)
        return value

    def integer(self, key: str, *, least: int, most: int = 99_999_999) -> int | None:
        """A whole number within bounds, or None when it was not given."""
        value = self.text(key)
        if value is None:
            return None
        name = self.name_of(key)
        if not re.fullmatch(r"-?\d{1,15}", value):
            raise StripeError.invalid(f"Invalid integer: {value}", param=name, code="parameter_invalid_integer")
        number = int(value)
        if number < least:
            message = f"This value must be greater than or equal to {least}."
            raise StripeError.invalid(message, param=name, code="parameter_invalid_integer")
        if number > most:
            message = f"This value must be less than or equal to {most}."
            raise StripeError.invalid(message, param=name, code="parameter_invalid_integer")
        return number

    def choice(self, key: str, allowed: Iterable[str]) -> str | None:
        """One of the words, or None when it was not given."""
        value = self.text(key)
        words = list(allowed)
        if value is not None and value not in words:
            message = f"Invalid {key}: must be one of {', '.join(words[:-1])} or {words[-1]}"
            raise StripeError.invalid(message, param=self.name_of(key))
        return value

    def url(self, key: str) -> str | None:
        """An absolute http(s) address, or None when it was not given."""
        value = self.text(key)
        if value is not None and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).netloc):
            raise StripeError.invalid("Not a valid URL", param=self.name_of(key), code="url_invalid")
        return value

    def email(self, key: str) -> str | None:
        """An e-mail address, or None when it was not given."""
        value = self.text(key, longest=512)
        if value is not None and not EMAIL.fullmatch(value):
            raise StripeError.invalid(f"Invalid email address: {value}", param=self.name_of(key), code="email_invalid")
        return value

    def metadata(self, key: str = "metadata") -> dict[str, str]:
        """Key-value pairs within Stripe's limits of 50 keys, 40 and 500 characters."""
        raw = self._values.get(key) or {}
        pairs = dict(enumerate(raw)) if isinstance(raw, list) else raw
        name = self.name_of(key)
        if not isinstance(pairs, dict):
            raise StripeError.invalid("Invalid object", param=name)
        if len(pairs) > MAX_METADATA_KEYS:
            raise StripeError.invalid("You can have up to 50 metadata keys.", param=name)
        return {k: _metadata_value(name, k, value) for k, value in ((str(k), v) for k, v in pairs.items()) if value}

    def child(self, key: str) -> "Params":
        """A nested object; empty when it was not given."""
        value = self._values.get(key) or {}
        if not isinstance(value, dict):
            raise StripeError.invalid("Invalid object", param=self.name_of(key))
        return Params(value, self.name_of(key))

    def children(self, key: str) -> Iterator["Params"]:
        """A list of nested objects."""
        value = self._values.get(key) or []
        if not isinstance(value, list):
            raise StripeError.invalid("Invalid array", param=self.name_of(key))
        for index, entry in enumerate(value):
            name = f"{self.name_of(key)}[{index}]"
            if not isinstance(entry, dict):
                raise StripeError.invalid("Invalid object", param=name)
            yield Params(entry, name)

    def words(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise StripeError.invalid("Invalid array", param=self.name_of(key))
        return value


def _metadata_value(name: str, key: str, value: Any) -> str:
    where = f"{name}[{key}]"
    if len(key) > MAX_METADATA_KEY:
        raise StripeError.invalid("Metadata keys can be at most 40 characters long.", param=where)
    if not isinstance(value, str):
        raise StripeError.invalid(f"Invalid string: {value}", param=where)
    if len(value) > MAX_METADATA_VALUE:
        raise StripeError.invalid("Metadata values can be at most 500 characters long.", param=where)
    return value
