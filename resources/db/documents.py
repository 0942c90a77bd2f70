"""Many rows as one parameter: a JSON document that a statement unfolds with `jsonb_to_recordset`.

However many rows there are, the statement's text is the same and has one parameter, which is what makes writing a
hundred rows at once cheap. Times and ids travel as text, decimals too, so that nothing becomes a float.
"""

import json
from collections.abc import Sequence
from typing import Any


def document(rows: Sequence[Any]) -> str:
    """Return dataclass instances with slots as a JSON array of objects, one key a field."""
    return json.dumps([{name: getattr(row, name) for name in row.__slots__} for row in rows], default=str)
