"""The vault: what it keeps is unreadable, found by hash, and survives key rotation and racing processes."""

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from esim.purchase import EsimProfile
from resources.db.vault import KEYS_FILE, Vault, VaultError, parse_keys
from resources.db.vault import PROFILE as PROFILE_CONTEXT
from resources.settings import Settings

KEY = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()
PROFILE = EsimProfile("8944000000000000001", "smdp.example.com", "ABC-123", apn="internet")


def test_profile_comes_back_and_is_not_readable_at_rest() -> None:
    vault = Vault({1: b"k" * 32}, b"h" * 32)
    blob = vault.encrypt_profile(PROFILE)
    assert PROFILE.iccid.encode() not in blob
    assert vault.decrypt_profile(blob) == PROFILE
    assert blob != vault.encrypt_profile(PROFILE)


def test_a_profile_kept_by_an_older_release_is_still_read() -> None:
    vault = Vault({1: b"k" * 32}, b"h" * 32)
    kept = {"iccid": PROFILE.iccid, "smdp_address": "smdp.example.com", "activation_code": "ABC-123", "apn": "internet"}
    blob = vault.encrypt(json.dumps(kept | {"install_url": "javascript:alert(1)"}).encode(), PROFILE_CONTEXT)
    assert vault.decrypt_profile(blob) == PROFILE


def test_newest_key_encrypts_and_older_ones_still_read() -> None:
    old = Vault({1: b"k" * 32}, b"h" * 32).encrypt(b"secret", "iccid")
    rotated = Vault(parse_keys(f"1:{KEY},2:{OTHER}"), b"h" * 32)
    with pytest.raises(VaultError, match="cannot be read with encryption key 1"):
        Vault({1: b"x" * 32}, b"h" * 32).decrypt(old, "iccid")
    assert Vault({1: b"k" * 32, 2: b"o" * 32}, b"h" * 32).decrypt(old, "iccid") == b"secret"
    assert rotated.decrypt(old, "iccid") == b"secret"
    assert rotated.encrypt(b"secret", "iccid")[:2] == b"\x00\x02"


def test_ciphertext_is_bound_to_its_purpose_and_key_version() -> None:
    vault = Vault({1: b"k" * 32}, b"h" * 32)
    blob = vault.encrypt(b"secret", "iccid")
    with pytest.raises(VaultError, match="cannot be read"):
        vault.decrypt(blob, "token")
    with pytest.raises(VaultError, match="key 7 is not listed"):
        vault.decrypt(b"\x00\x07" + blob[2:], "iccid")
    with pytest.raises(VaultError):
        vault.decrypt(b"\x00\x01short", "iccid")


def test_a_seal_is_bound_to_its_text_its_purpose_and_a_listed_key() -> None:
    old, rotated = Vault({1: b"k" * 32}, b"h" * 32), Vault({1: b"k" * 32, 2: b"o" * 32}, b"h" * 32)
    seal = old.seal(b"text", "mail")
    assert old.is_seal(seal, b"text", "mail")
    assert rotated.is_seal(seal, b"text", "mail")
    assert rotated.seal(b"text", "mail")[:2] == b"\x00\x02"
    assert not old.is_seal(seal, b"text", "other")
    assert not old.is_seal(seal, b"other", "mail")
    assert not old.is_seal(b"\x00\x02" + seal[2:], b"text", "mail")
    assert not old.is_seal(seal[:-1], b"text", "mail")
    assert not old.is_seal(b"", b"text", "mail")


def test_lookup_hash_needs_its_own_key() -> None:
    one, two = Vault({1: b"k" * 32}, b"h" * 32), Vault({1: b"k" * 32}, b"i" * 32)
    assert one.lookup_hash("8944") == one.lookup_hash("8944") != two.lookup_hash("8944")


def test_sandbox_keys_are_made_once_by_racing_processes(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "fresh")
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: Vault.from_settings(settings), range(16)))
    blob = vaults[0].encrypt(b"secret", "iccid")
    assert all(vault.decrypt(blob, "iccid") == b"secret" for vault in vaults)
    files = list((tmp_path / "fresh").iterdir())
    assert [file.name for file in files] == [KEYS_FILE]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_keys_from_settings_are_checked(tmp_path: Path) -> None:
    both = Settings(encryption_keys=SecretStr(f"1:{KEY}"), lookup_hash_key=SecretStr(OTHER), data_dir=tmp_path)
    assert Vault.from_settings(both).encrypt(b"x", "iccid")[:2] == b"\x00\x01"
    assert not (tmp_path / KEYS_FILE).exists()
    with pytest.raises(VaultError, match="LOOKUP_HASH_KEY is not set"):
        Vault.from_settings(Settings(encryption_keys=SecretStr(f"1:{KEY}")))


@pytest.mark.parametrize("text", ["1", "x:abc", f"1:{KEY},1:{KEY}", "1:abc", "1:YWJj", f"0:{KEY}", f"70000:{KEY}"])
def test_malformed_keys_are_refused(text: str) -> None:
    with pytest.raises(VaultError):
        parse_keys(text)


def test_no_key_at_all_is_refused() -> None:
    with pytest.raises(VaultError, match="ENCRYPTION_KEYS"):
        Vault({}, b"h" * 32)
