"""The error tree: every failure the business names, with the sentence a reader is shown by default.

```
NumnaRoadError
├── InvalidInput                     the caller sent something that cannot be used
│   ├── InvalidMoney
│   ├── InvalidOffer                 one plan of a catalogue cannot be sold
│   └── UnsupportedCurrency
├── NotFound
├── Conflict                         the world moved on since the caller looked
│   ├── PriceChanged
│   ├── SoldOut
│   ├── IdempotencyMismatch
│   ├── IllegalTransition
│   ├── RefundsUnclear               an event alone does not tell what was paid back; the payment service does
│   └── Refused                      what an operator asked for would do harm, or makes no sense now
├── CatalogueHeld                    a provider's catalogue may not replace the last good one
├── ProviderError                    a read at a provider failed (a purchase never raises: it has outcomes)
│   ├── ProviderUnavailable          try again later
│   │   └── ProviderThrottled        too many calls, by the provider's count or by ours
│   ├── ProviderRejected             a clear refusal
│   ├── ProviderAuthFailed
│   └── MalformedReply               an answer that does not follow the contract
├── UnsupportedCapability            asked for what the provider's declaration excludes
├── WebhookRejected                  forged, stale or unreadable
├── PaymentError
│   ├── PaymentUnavailable
│   │   └── PaymentServiceFault      it answered that it failed, and may repeat that for the same request
│   └── PaymentRejected
├── NoticeError                      a mail or chat message could not be handed over
└── LeaseLost                        another worker owns this unit now
```
"""


class NumnaRoadError(Exception):
    """Something failed inside NumnaRoad."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class InvalidInput(NumnaRoadError):
    """The request cannot be used as it is."""

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidMoney(InvalidInput):
    """An amount of money is not an exact, finite number of a known currency."""


class InvalidOffer(InvalidInput):
    """A provider's plan cannot be sold as it stands."""


class UnsupportedCurrency(InvalidInput):
    """This currency is not sold."""


class NotFound(NumnaRoadError):
    """There is no such thing."""


class Conflict(NumnaRoadError):
    """The request does not fit the present state."""


class PriceChanged(Conflict):
    """The price changed since it was listed."""


class SoldOut(Conflict):
    """The package is not on sale any more."""


class IdempotencyMismatch(Conflict):
    """This idempotency key was used for another request."""


class IllegalTransition(Conflict):
    """An order cannot go from its present state to the one asked for."""


class RefundsUnclear(Conflict):
    """What was paid back of a payment cannot be told from the event; ask the payment service for its refunds."""

    def __init__(self, payment_intent: str) -> None:
        super().__init__()
        self.payment_intent = payment_intent


class Refused(Conflict):
    """What was asked for would do harm, or makes no sense as things stand; nothing was changed."""


class CatalogueHeld(NumnaRoadError):
    """The new catalogue differs too much from the last good one and is held back."""


class ProviderError(NumnaRoadError):
    """A provider did not answer as its contract says."""


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached or is overloaded; try again later."""


class ProviderThrottled(ProviderUnavailable):
    """The provider takes no more calls just now; try again in `wait_seconds`, where it says so."""

    def __init__(self, message: str | None = None, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class ProviderRejected(ProviderError):
    """The provider refused the request."""


class ProviderAuthFailed(ProviderError):
    """The provider refused our credentials; check its keys in the settings."""


class MalformedReply(ProviderError):
    """The provider's answer does not follow its contract."""


class UnsupportedCapability(NumnaRoadError):
    """The provider does not offer this operation."""


class WebhookRejected(NumnaRoadError):
    """The webhook is not authentic or not readable."""


class PaymentError(NumnaRoadError):
    """The payment service did not do what was asked."""


class PaymentUnavailable(PaymentError):
    """The payment service cannot be reached; try again later."""


class PaymentServiceFault(PaymentUnavailable):
    """The payment service answered with a fault of its own; asked under the same key, it may repeat just that."""


class PaymentRejected(PaymentError):
    """The payment service refused the request."""


class NoticeError(NumnaRoadError):
    """A notice could not be handed over."""


class LeaseLost(NumnaRoadError):
    """The lease on this unit is over; another worker may own it."""
