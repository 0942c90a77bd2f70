"""Slack behind the `ChatNotifier` port: an incoming webhook for operations.

Promises: whatever looks like an e-mail address, an ICCID or an activation string is taken out before it leaves; a
provider's words cannot call people or draw links; the webhook's address, a secret, never appears in an error.
"""

import httpx

from esim.errors import NoticeError
from resources.logs import redact_text
from resources.settings import Settings
from resources.tls import tls_context

LONGEST_TEXT = 3000


class SlackNotifier:
    """Posts to one channel."""

    def __init__(self, *, webhook_url: str, timeout: float = 5.0) -> None:
        """Take the webhook's address and a timeout in seconds."""
        self._url = webhook_url
        self._client = httpx.Client(timeout=timeout, verify=tls_context())

    def post(self, text: str, *, key: str) -> None:
        """Post one note; Slack knows no keys, so `key` only names the note in an error.

        Raises:
            NoticeError: not handed over; try again later.
        """
        body = {"text": _escape(redact_text(text)[:LONGEST_TEXT]), "unfurl_links": False}
        try:
            answer = self._client.post(self._url, json=body)
        except httpx.HTTPError as error:
            raise NoticeError(f"Slack did not take note {key} ({type(error).__name__}); try again later") from None
        if not answer.is_success:
            told = redact_text(answer.text[:60])
            raise NoticeError(f"Slack did not take note {key} (HTTP {answer.status_code}, {told}); try again later")

    def close(self) -> None:
        """Give connections back."""
        self._client.close()


def _escape(value: str) -> str:
    """Make a value harmless inside Slack's markup (`<!channel>`, links)."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def notifier(settings: Settings) -> SlackNotifier:
    """The channel these settings name: the sandbox's until a webhook is set."""
    return SlackNotifier(webhook_url=settings.slack.url)
