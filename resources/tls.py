"""How we trust the outside: one TLS context for all clients of a process, since reading the certificates takes time."""

import ssl
from functools import cache

import httpx


@cache
def tls_context() -> ssl.SSLContext:
    """Return httpx's own default context, made once; it may be shared by clients and threads."""
    return httpx.create_ssl_context()
