"""SMTP over the open line: certificates are checked, and a password never travels unencrypted."""

import datetime
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from esim.errors import NoticeError
from esim.ports import Mail
from resources.mail.carriers import SmtpMailer

MAIL = Mail("customer@example.com", "Hello", "<p>Hello</p>", "Hello")
SENDER = "orders@numnaroad.test"


class Sink:
    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:
        self.taken.append(b"encrypted" if session.ssl else b"open")
        return "250 OK"


def own_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "own.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


class FreePort(Controller):
    """A controller that may listen on any port."""

    def _trigger_server(self) -> None:
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        go_on: Callable[[], None] = super()._trigger_server
        go_on()


def anybody(*_args: Any) -> AuthResult:
    return AuthResult(success=True)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Sink, int, Path]]:
    sink, certificate = Sink(), own_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = FreePort(sink, hostname="127.0.0.1", port=0, tls_context=context, authenticator=anybody)
    server.start()
    yield sink, server.port, certificate
    server.stop()


@pytest.fixture
def plain() -> Iterator[tuple[Sink, int]]:
    sink = Sink()
    server = FreePort(sink, hostname="127.0.0.1", port=0, authenticator=anybody, auth_require_tls=False)
    server.start()
    yield sink, server.port
    server.stop()


def test_offered_encryption_is_used_and_an_unknown_certificate_refused(secure: tuple[Sink, int, Path]) -> None:
    sink, port, _ = secure
    with pytest.raises(NoticeError, match="SSLCertVerificationError"):
        SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, user="u", password="p").send(MAIL, key="k")
    assert sink.taken == []


def test_password_is_not_sent_over_an_open_line_beyond_this_machine(plain: tuple[Sink, int]) -> None:
    sink, port = plain
    # 127.1 reaches this machine but is not a name we know as such, so it stands for any other host.
    far = SmtpMailer(host="127.1", port=port, sender=SENDER, user="u", password="p")
    with pytest.raises(NoticeError, match="SMTPNotSupportedError"):
        far.send(MAIL, key="k")
    assert sink.taken == []
    SmtpMailer(host="127.1", port=port, sender=SENDER).send(MAIL, key="k")
    SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, user="u", password="p").send(MAIL, key="k")
    assert sink.taken == [b"open", b"open"]


def test_trusted_certificate_encrypts(secure: tuple[Sink, int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sink, port, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    SmtpMailer(host="127.0.0.1", port=port, sender=SENDER, user="u", password="p").send(MAIL, key="k")
    assert sink.taken == [b"encrypted"]
