"""The security headers every answer carries; pages add their own content policy."""

from api.ready_answer import Headers

# Pages load our own style, script and pictures and nothing else; QR codes arrive as blobs made by our script.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)


# Public JSON without markup: all a browser could get wrong is its type. Every header costs the hot path 2 %.
CATALOGUE_HEADERS: Headers = [(b"x-content-type-options", b"nosniff")]


def security_headers(*, https: bool) -> Headers:
    """Return what goes on every answer; strict transport security only where the shop is served over HTTPS."""
    headers: Headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    ]
    if https:
        headers.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
    return headers
