"""Bugs to plant into a campaign, so that everybody can see that it finds them."""

from typing import Any, cast

from esim.ports import Provider
from esim.purchase import ErrorType, Evidence, Outcome, PurchaseRequest, Rejected, Unknown

BUYS_AGAIN = "buys-again"
BUGS = {BUYS_AGAIN: "takes a lost answer for a refusal, so that the next provider is asked"}


class BuysAgain:
    """An adapter with the worst bug there is: no answer means nothing was bought."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        """Do everything else as the real adapter does."""
        return getattr(self._inner, name)

    def purchase(self, request: PurchaseRequest, evidence: Evidence) -> Outcome:
        """Buy, and forget what may have been bought."""
        outcome = self._inner.purchase(request, evidence)
        if isinstance(outcome, Unknown):
            return Rejected(ErrorType.NETWORK_ERROR, "no answer, so it was not bought")
        return outcome


def planted(bug: str, provider: Provider) -> Provider:
    """Return a provider's adapter with a bug, or as it is where none is named."""
    return cast(Provider, BuysAgain(provider)) if bug == BUYS_AGAIN else provider
