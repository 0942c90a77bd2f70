"""Imported once by the server that children are forked from: everything a drain or the API would import anew."""

import api.app
import pipelines.drain
import resources.db.limiter
import resources.db.tokens
import resources.mail.carriers
import resources.mail.messages
import resources.mail.slack
import resources.payments.stripe
import resources.providers.registry
from resources.tls import tls_context

tls_context()  # reading the certificates takes a child longer than everything else it does before it works

__all__ = ["api", "pipelines", "resources"]
