"""Keep activation data and ICCIDs unreadable at rest, and findable without reading them.

AES-GCM with versioned keys: every key that ever encrypted stays listed, the last one encrypts. Look-ups go through a
keyed hash with a key of its own, so that encryption keys can rotate and hashes stay. `context` binds a ciphertext to
its purpose: what was encrypted as one thing does not decrypt as another. A seal proves that we made a text known to
both sides; its keys are derived from the encryption keys, so it lives as long as the key that made it is listed.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from esim.errors import NumnaRoadError
from esim.purchase import EsimProfile
from resources.settings import Settings

KEYS_FILE = "keys.json"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION_BYTES = 2
PROFILE = "esim-profile"
ICCID = "iccid"
_PROFILE_FIELDS = [field.name for field in fields(EsimProfile)]  # older releases kept more
_SEALS = b"numnaroad seals"  # keeps the derived keys apart from the AES keys they come from


class VaultError(NumnaRoadError):
    """A key is missing or malformed, or a ciphertext was not made by us."""


class Vault:
    """Encrypts, decrypts and hashes with the keys it was given."""

    def __init__(self, keys: Mapping[int, bytes], lookup_key: bytes) -> None:
        if not keys:
            raise VaultError("no encryption key; set ENCRYPTION_KEYS to 1:<base64 of 32 bytes>")
        self._ciphers = {version: AESGCM(key) for version, key in keys.items()}
        self._seal_keys = {version: hmac.digest(key, _SEALS, hashlib.sha256) for version, key in keys.items()}
        self._newest = list(keys)[-1]
        self._lookup_key = lookup_key

    @classmethod
    def from_settings(cls, settings: Settings) -> "Vault":
        """Return the vault of ENCRYPTION_KEYS and LOOKUP_HASH_KEY, or of a keys file made in DATA_DIR.

        Raises:
            VaultError: only one of the two is set, or a key is not base64 of 32 bytes; the message says which.
        """
        keys, lookup = settings.encryption_keys, settings.lookup_hash_key
        if keys is None and lookup is None:
            stored = _stored_keys(settings.data_dir)
            return cls(parse_keys(stored["encryption_keys"]), _key("lookup_hash_key", stored["lookup_hash_key"]))
        if keys is None or lookup is None:
            missing = "ENCRYPTION_KEYS" if keys is None else "LOOKUP_HASH_KEY"
            raise VaultError(f"{missing} is not set; it goes with the other key, set both or none")
        return cls(parse_keys(keys.get_secret_value()), _key("LOOKUP_HASH_KEY", lookup.get_secret_value()))

    def encrypt(self, plain: bytes, context: str) -> bytes:
        """Return key version, nonce and ciphertext of `plain`, bound to `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, plain, context.encode())
        return self._newest.to_bytes(_VERSION_BYTES) + nonce + sealed

    def decrypt(self, blob: bytes, context: str) -> bytes:
        """Return what was encrypted under `context`.

        Raises:
            VaultError: the key version is not listed, or the ciphertext or context is not ours.
        """
        version = int.from_bytes(blob[:_VERSION_BYTES])
        if version not in self._ciphers:
            raise VaultError(f"encryption key {version} is not listed in ENCRYPTION_KEYS; add it back")
        nonce, sealed = blob[_VERSION_BYTES : _VERSION_BYTES + _NONCE_BYTES], blob[_VERSION_BYTES + _NONCE_BYTES :]
        try:
            return self._ciphers[version].decrypt(nonce, sealed, context.encode())
        except (InvalidTag, ValueError) as error:
            raise VaultError(f"a ciphertext of {context} cannot be read with encryption key {version}") from error

    def seal(self, text: bytes, context: str) -> bytes:
        """Return the key version and a keyed hash (HMAC-SHA256) of `text`, bound to `context`."""
        return self._seal(self._newest, text, context)

    def is_seal(self, seal: bytes, text: bytes, context: str) -> bool:
        """Return whether `seal` is what a key still listed made of `text` under `context`, in constant time."""
        version = int.from_bytes(seal[:_VERSION_BYTES])
        return version in self._seal_keys and hmac.compare_digest(seal, self._seal(version, text, context))

    def _seal(self, version: int, text: bytes, context: str) -> bytes:
        key = hmac.digest(self._seal_keys[version], context.encode(), hashlib.sha256)
        return version.to_bytes(_VERSION_BYTES) + hmac.digest(key, text, hashlib.sha256)

    def lookup_hash(self, value: str) -> bytes:
        """Return the keyed hash (HMAC-SHA256) that finds `value` without storing it."""
        return hmac.new(self._lookup_key, value.encode(), hashlib.sha256).digest()

    def encrypt_profile(self, profile: EsimProfile) -> bytes:
        """Return the activation data of an eSIM as one ciphertext."""
        return self.encrypt(json.dumps(asdict(profile)).encode(), PROFILE)

    def decrypt_profile(self, blob: bytes) -> EsimProfile:
        """Return the activation data that `encrypt_profile` kept.

        Raises:
            VaultError: the ciphertext is not ours.
        """
        stored = json.loads(self.decrypt(blob, PROFILE))
        return EsimProfile(**{name: stored[name] for name in _PROFILE_FIELDS if name in stored})


def parse_keys(text: str) -> dict[int, bytes]:
    """Read `1:<base64>,2:<base64>` into keys by version, in the order written.

    Raises:
        VaultError: a version is not a number up to 65535 or comes twice, or a key is not base64 of 32 bytes.
    """
    keys: dict[int, bytes] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        version, _, encoded = part.partition(":")
        if not version.isdecimal() or not 0 < int(version) < 1 << (8 * _VERSION_BYTES) or int(version) in keys:
            raise VaultError("ENCRYPTION_KEYS wants a new version number before each colon, such as 1:<base64>")
        keys[int(version)] = _key(f"ENCRYPTION_KEYS version {version}", encoded)
    return keys


def _key(name: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VaultError(f"{name} is not base64") from error
    if len(key) != _KEY_BYTES:
        raise VaultError(f"{name} has {len(key)} bytes instead of {_KEY_BYTES}")
    return key


def _stored_keys(data_dir: Path) -> dict[str, str]:
    """Read the keys file, making it first where there is none; of two makers at once the first one wins."""
    path = data_dir / KEYS_FILE
    with suppress(FileNotFoundError):
        return _read_keys(path)
    data_dir.mkdir(parents=True, exist_ok=True)
    fresh = {"encryption_keys": f"1:{_fresh()}", "lookup_hash_key": _fresh()}
    handle, name = tempfile.mkstemp(dir=data_dir, prefix=".keys-")  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(fresh, file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)  # a link never replaces: whoever comes second reads the first one's keys
    finally:
        Path(name).unlink()
    return _read_keys(path)


def _read_keys(path: Path) -> dict[str, str]:
    stored = json.loads(path.read_text())
    return {name: str(stored[name]) for name in ("encryption_keys", "lookup_hash_key")}


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
