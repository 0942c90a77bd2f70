"""The cases every provider adapter must pass; `tests/resources/providers/test_<slug>_provider.py` subclasses the suite.

```
from tests.resources.providers.provider_contract import ProviderContract
from tests.resources.providers.wire import Wire

class AcmeWire(Wire): ...            # the provider in small: see `wire.Wire`, one attribute or method per difference

class TestAcme(ProviderContract):
    wire_type = AcmeWire             # add cases of your own below
```
What a `Wire` returns from `refusals()`, `unclear()`, `accepted()`, `delivered()`, `status_answers()` and `spoilt()`
becomes one test case per name. Retries do not wait (conftest). Nothing here names a provider: cases ask `capabilities`.
"""

from tests.resources.providers.account_cases import AccountCases
from tests.resources.providers.catalogue_cases import CatalogueCases
from tests.resources.providers.purchase_cases import PurchaseCases, ResolveCases
from tests.resources.providers.statement_cases import StatementCases


class ProviderContract(PurchaseCases, ResolveCases, CatalogueCases, AccountCases, StatementCases):
    """Everything a provider adapter must do."""
