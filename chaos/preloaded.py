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

__all__ = ["api", "pipelines", "resources"]
