"""Providers' access tokens, kept encrypted and shared by every process, so that token endpoints are rarely called."""

from datetime import datetime

from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from resources.db.tables import provider_tokens
from resources.db.vault import Vault, VaultError

_CONTEXT = "provider-token"


class PostgresTokenStore:
    """A `TokenStore` in the operational store."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault

    def get(self, provider: str, now: datetime) -> str | None:
        """Return a token that is still good, if there is one; one that cannot be read any more counts as none."""
        found = select(provider_tokens.c.token_enc).where(
            provider_tokens.c.provider == provider, provider_tokens.c.expires_at > now
        )
        with self._engine.connect() as conn:
            sealed = conn.scalar(found)
        if sealed is None:
            return None
        try:
            return self._vault.decrypt(bytes(sealed), _CONTEXT).decode()
        except VaultError:
            return None

    def put(self, provider: str, token: str, expires_at: datetime) -> None:
        """Keep a fresh token."""
        values = {
            "token_enc": self._vault.encrypt(token.encode(), _CONTEXT),
            "token_hash": self._vault.lookup_hash(token),
            "expires_at": expires_at,
        }
        statement = insert(provider_tokens).values(provider=provider, **values)
        with self._engine.begin() as conn:
            conn.execute(statement.on_conflict_do_update(index_elements=[provider_tokens.c.provider], set_=values))

    def discard(self, provider: str, token: str) -> None:
        """Forget this token (it was refused), unless another process replaced it already."""
        refused = delete(provider_tokens).where(
            provider_tokens.c.provider == provider, provider_tokens.c.token_hash == self._vault.lookup_hash(token)
        )
        with self._engine.begin() as conn:
            conn.execute(refused)
