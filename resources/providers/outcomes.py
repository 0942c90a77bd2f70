"""From a failed read to an outcome: what a read beside a purchase proves, and what it leaves open.

Before a purchase nothing has been bought, so any failure is `Rejected`; after one, any failure is `Unknown`.
"""

from esim.errors import MalformedReply, ProviderAuthFailed, ProviderError, ProviderRejected, ProviderThrottled
from esim.money import Cost
from esim.purchase import ErrorType, PurchaseRequest, Rejected, Unknown


def not_bought(error: ProviderError) -> Rejected:
    """Return the refusal for a read that failed before anything was sent."""
    wait = error.wait_seconds if isinstance(error, ProviderThrottled) else None
    return Rejected(_type_of(error), f"before buying: {error}", wait)


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
    return ErrorType.RATE_LIMITED if isinstance(error, ProviderThrottled) else ErrorType.NETWORK_ERROR
