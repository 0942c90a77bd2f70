"""From a failed read to an outcome: what a read beside a purchase proves, and what it leaves open.

Before a purchase nothing has been bought, so any failure is `Rejected`; after one, any failure is `Unknown`.
"""

from dataclasses import replace

from esim.errors import (
    InvalidInput,
    MalformedReply,
    ProviderAuthFailed,
    ProviderError,
    ProviderRejected,
    ProviderThrottled,
)
from esim.money import Cost
from esim.purchase import (
    OTHER_ORDERS,
    ErrorType,
    Evidence,
    Json,
    OrderFacts,
    Outcome,
    Provisioned,
    PurchaseRequest,
    Rejected,
    Unknown,
)


def not_bought(error: ProviderError) -> Rejected:
    """Return the refusal for a read that failed before anything was sent."""
    wait = error.wait_seconds if isinstance(error, ProviderThrottled) else None
    return Rejected(_type_of(error), f"before buying: {error}", wait)


def still_unknown(error: ProviderError) -> Unknown:
    """Return the open outcome for a read that failed after a purchase was sent."""
    return Unknown(_type_of(error), f"not looked up yet: {error}")


def with_facts(outcome: Outcome, facts: OrderFacts) -> Outcome:
    """Return a delivery with what the order itself says, any other outcome as it is."""
    return replace(outcome, facts=facts) if isinstance(outcome, Provisioned) else outcome


def other_orders(evidence: Evidence) -> dict[str, Cost | None]:
    """Return the orders in a look-up's evidence that are other purchases', with what each cost where that is known."""
    noted = evidence.get(OTHER_ORDERS)
    rows = noted if isinstance(noted, dict) else {}
    return {number: None if cost is None else _cost(cost) for number, cost in rows.items()}


def _cost(text: Json) -> Cost | None:
    try:
        return Cost.parse(*str(text).split(" ", 1))
    except (InvalidInput, TypeError):
        return None


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
