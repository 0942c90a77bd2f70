"""Many rows as one parameter: a JSON document that a statement unfolds with `jsonb_to_recordset`.

However many rows there are, the statement's text is the same and has one parameter, which is what makes writing a
hundred rows at once cheap. Times and ids travel as text, decimals too, so that nothing becomes a float.
"""

import json
from collections.abc import Sequence
from typing import Any


def document(rows: Sequence[Any]) -> str:
    """Return rows as a JSON array of objects: mappings as they are, dataclass instances with slots one key a field."""
    return json.dumps([row if isinstance(row, dict) else _fields(row) for row in rows], default=_as_text)


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _as_text(value: object) -> str:
    """Bytes travel in hexadecimal, for `decode(..., 'hex')`."""
    return value.hex() if isinstance(value, bytes) else str(value)
