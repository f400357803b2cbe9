"""Which proxy a request uses, and the errors for one that fails or is invalid."""

import asyncio
import importlib.util
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayd.akool.connect import connect
from relayd.config.loading import load
from relayd.errors import ConfigError, ExitCode, ServiceUnreachable
from relayd.http.client import Answer, HttpClient
from relayd.http.proxies import proxy_for

TARGET = "http://service.example/x"
KEY = {"AKOOL_API_KEY": "a-test-key"}
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def get(url: str) -> Answer:
    async with HttpClient() as http:
        return await http.request("GET", url)


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    """Answer each request like this (empty: close the connection); yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "environment", "through"),
    [
        ("http://a.example/", {}, None),
        ("http://a.example/", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://a.example/", {"HTTP_PROXY": "p:1"}, "http://p:1"),
        ("https://a.example/", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://a.example/", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "", "ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example/", {"HTTPS_PROXY": "http://P:1", "https_proxy": "http://p:1"}, "http://p:1"),
        ("http://127.0.0.1:8700/", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://127.3.2.1/", {"ALL_PROXY": "http://p:1"}, None),
        ("http://[::1]:8700/", {"ALL_PROXY": "http://p:1"}, None),
        ("http://[::ffff:127.0.0.1]/", {"ALL_PROXY": "http://p:1"}, None),
        ("http://localhost/", {"ALL_PROXY": "http://p:1"}, None),
        ("http://a.localhost/", {"ALL_PROXY": "http://p:1"}, None),
    ],
)  # fmt: skip
def test_a_request_goes_through_the_proxy_of_its_scheme_and_never_to_this_machine(
    url: str, environment: dict[str, str], through: str | None
) -> None:
    proxy = proxy_for(url, environment)
    assert (proxy and proxy.url) == through


@pytest.mark.parametrize(
    ("excepted", "host", "direct"),
    [
        ("*", "a.example", True),
        ("example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("A.EXAMPLE", "a.example", True),
        ("other, a.example", "a.example", True),
        ("a.example:80", "a.example", True),
        ("a.example:81", "a.example", False),
        ("xample", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("fe80::/10", "[fe80::1]", True),
        ("fe80::1", "[fe80::1]", True),
        ("[fe80::1]:80", "[fe80::1]", True),
        ("::1/128", "a.example", False),
        ("::1/999,[,:,//,http://", "a.example", False),
        ("http://a.example", "a.example", True),
        ("", "a.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_addresses_and_networks(
    excepted: str, host: str, *, direct: bool
) -> None:
    environment = {"HTTP_PROXY": "http://p:1", "NO_PROXY": excepted}
    assert (proxy_for(f"http://{host}/", environment) is None) is direct


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", ["http://p:99999", "ftp://p", "http://", "p q", "http://[::1"])
def test_an_invalid_proxy_variable_is_named_with_a_fix(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        proxy_for(TARGET, {name: value})
    (fault,) = caught.value.faults
    assert fault.startswith(f"{name} (environment): ")
    assert fault.endswith(f"or unset {name}")
    assert proxy_for("http://127.0.0.1/", {name: value}) is None, "it is not needed"


def test_a_socks_proxy_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as caught:
        proxy_for(TARGET, {"ALL_PROXY": "socks5://me:hunter22@127.0.0.1:1080"})
    (fault,) = caught.value.faults
    assert fault.startswith("ALL_PROXY=socks5://127.0.0.1:1080 (environment): ")
    assert 'pip install "httpx[socks]"' in fault


def test_a_password_of_a_proxy_is_never_shown() -> None:
    proxy = proxy_for(TARGET, {"HTTP_PROXY": "http://me:hunter22@p:1"})
    assert proxy
    assert proxy.description == "HTTP_PROXY=http://p:1"


async def test_a_dead_proxy_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter22@127.0.0.1:{unused_port()}")
    with pytest.raises(ServiceUnreachable) as caught:
        await get(TARGET)
    assert "through the proxy HTTP_PROXY=http://127.0.0.1:" in caught.value.message
    assert "Connection refused" in caught.value.message
    assert caught.value.hint == "check HTTP_PROXY, or name the host in NO_PROXY"
    assert "hunter22" not in str(caught.value)
    assert not caught.value.sent


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_requires_a_password_is_named(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with server(refusal) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ServiceUnreachable, match=r"ALL_PROXY=.*: .*407 Proxy") as caught:
            await get(f"{scheme}://service.example/x")
    assert not caught.value.sent


async def test_a_proxy_that_closes_the_connection_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(b"") as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(ServiceUnreachable, match=r"HTTP_PROXY="):
            await get(TARGET)


async def test_this_machine_is_reached_whatever_the_proxy_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NAMES[:3]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "::1/128")
    async with server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as port:
        assert (await get(f"http://127.0.0.1:{port}/")).text == "hi"
        assert (await get(f"http://localhost:{port}/")).text == "hi"


async def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as port:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
        assert (await get(TARGET)).text == "hi"


async def test_a_service_behind_an_unusable_proxy_variable_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://p")
    settings = load(None, [], KEY)
    with pytest.raises(ConfigError, match=r"^ALL_PROXY \(environment\)") as caught:
        async with connect(settings):
            pass
    assert caught.value.exit_code is ExitCode.CONFIG
    with pytest.raises(ServiceUnreachable, match=r"ALL_PROXY \(environment\)") as unreachable:
        await get(TARGET)
    assert not unreachable.value.sent


@pytest.mark.parametrize(
    ("variable", "content", "why"),
    [
        ("SSL_CERT_FILE", None, "No such file"),
        ("SSL_CERT_FILE", b"nonsense", "no PEM certificate"),
        ("SSL_CERT_DIR", None, "No such file"),
    ],
)
async def test_a_ca_file_or_folder_that_cannot_be_used_is_named(
    variable: str, content: bytes | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(ConfigError, match=why) as caught:
        async with connect(load(None, [], KEY)):
            pass
    assert str(caught.value).startswith(f"{variable}={path} (environment): ")
    async with connect(load(None, ["akool.base_url=http://127.0.0.1"], KEY)):
        pass  # nothing to verify


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed key and certificate for 127.0.0.1, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    pem = folder / "both.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
        f" -keyout {folder}/key.pem -out {folder}/cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    pem.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return pem


async def test_an_untrusted_certificate_gets_a_hint_and_ssl_cert_file_is_used(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        with pytest.raises(ServiceUnreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await get(url)
        assert "SSL_CERT_FILE" in caught.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert (await get(url)).text == "hi"
