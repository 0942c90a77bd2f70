"""HTML pages of the sandbox, rendered from `sandbox/templates` with every value escaped."""

from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render one template to an answer that no cache keeps."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values), status, {"Cache-Control": "no-store"})
