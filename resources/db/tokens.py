"""Providers' access tokens, kept encrypted and shared by every process, so that token endpoints are rarely called."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from resources.db.tables import provider_tokens
from resources.db.vault import Vault, VaultError

_CONTEXT = "provider-token"
_REMEMBER = timedelta(seconds=5)  # a purchase asks twice; one refused meanwhile is discarded by whoever meets that


class PostgresTokenStore:
    """A `TokenStore` in the operational store."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._remembered: dict[str, tuple[str, datetime]] = {}  # provider -> token, good for us until

    def get(self, provider: str, now: datetime) -> str | None:
        """Return a token that is still good, if there is one; one that cannot be read any more counts as none."""
        token, until = self._remembered.get(provider, ("", now))
        if until > now:
            return token
        t = provider_tokens.c
        with self._engine.connect() as conn:
            row = conn.execute(select(t.token_enc, t.expires_at).where(t.provider == provider, t.expires_at > now))
            found = row.one_or_none()
        if found is None:
            return None
        try:
            token = self._vault.decrypt(bytes(found.token_enc), _CONTEXT).decode()
        except VaultError:
            return None
        self._remembered[provider] = (token, min(found.expires_at, now + _REMEMBER))
        return token

    def put(self, provider: str, token: str, expires_at: datetime) -> None:
        """Keep a fresh token."""
        self._remembered.pop(provider, None)
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
        self._remembered.pop(provider, None)
        refused = delete(provider_tokens).where(
            provider_tokens.c.provider == provider, provider_tokens.c.token_hash == self._vault.lookup_hash(token)
        )
        with self._engine.begin() as conn:
            conn.execute(refused)
