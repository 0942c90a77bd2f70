"""The RSA key MobiMatter signs with: computed from the seed, so it is the same after every start and stored nowhere.

Good for a sandbox only: whoever knows the seed knows the key.
"""

import random
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_SMALL = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
_EXPONENT = 65537


def _is_prime(candidate: int, rng: random.Random) -> bool:
    if any(candidate % small == 0 for small in _SMALL):
        return False
    odd, twos = candidate - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(12):
        power = pow(rng.randrange(2, candidate - 1), odd, candidate)
        if power in {1, candidate - 1}:
            continue
        for _ in range(twos - 1):
            power = pow(power, 2, candidate)
            if power == candidate - 1:
                break
        else:
            return False
    return True


def _prime(rng: random.Random) -> int:
    while True:
        candidate = rng.getrandbits(1024) | (3 << 1022) | 1
        if candidate % _EXPONENT != 1 and _is_prime(candidate, rng):
            return candidate


@cache
def signing_key(seed: int) -> rsa.RSAPrivateKey:
    """The 2048-bit key of a seed."""
    rng = random.Random(f"{seed}:mobimatter-key")  # noqa: S311 (repeatable on purpose)
    p, q = _prime(rng), _prime(rng)
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return numbers.private_key()


def public_pem(seed: int) -> bytes:
    """The public half, as the provider prints it in its documents."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return signing_key(seed).public_key().public_bytes(serialization.Encoding.PEM, form)


def sign(seed: int, text: bytes) -> bytes:
    """RSA, SHA-256, PKCS#1 v1.5."""
    return signing_key(seed).sign(text, padding.PKCS1v15(), hashes.SHA256())
