"""From a failed read to an outcome: what a read beside a purchase proves, and what it leaves open.

Before a purchase nothing has been bought, so any failure is `Rejected`; after one, any failure is `Unknown`.
"""

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected
from esim.money import Cost
from esim.purchase import ErrorType, PurchaseRequest, Rejected, Unknown

PREPARE_ATTEMPTS = 2  # a customer waits: the next offer is better than the full backoff


def not_bought(error: ProviderError) -> Rejected:
    """Return the refusal for a read that failed before anything was sent."""
    return Rejected(_type_of(error), f"before buying: {error}")


def still_unknown(error: ProviderError) -> Unknown:
    """Return the open outcome for a read that failed after a purchase was sent."""
    return Unknown(_type_of(error), f"not looked up yet: {error}")


def too_dear(slug: str, cost: Cost, request: PurchaseRequest) -> Rejected | None:
    """Return a refusal when `cost` is above the ceiling or in another currency, None when it may be paid."""
    ceiling = request.cost_ceiling
    if cost.currency == ceiling.currency and 0 < cost.amount <= ceiling.amount:
        return None
    return Rejected(ErrorType.PRICE_CHANGED, f"{slug} asks {cost}, the ceiling is {ceiling}")


def _type_of(error: ProviderError) -> ErrorType:
    if isinstance(error, ProviderAuthFailed):
        return ErrorType.AUTH_FAILED
    if isinstance(error, ProviderRejected):
        return ErrorType.INVALID_PRODUCT
    if isinstance(error, MalformedReply):
        return ErrorType.PROVIDER_API_ERROR
    return ErrorType.NETWORK_ERROR
