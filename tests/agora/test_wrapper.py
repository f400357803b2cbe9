"""How Agora's wrapper is fetched and packed: checked by hash, without running its code."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.errors import LibraryUnavailable, UsageError
from relayd.rtc.agora import archive, index, install, sdist, wheel
from relayd.rtc.agora.installation import PACKAGE
from tests.agora.vendor import Quiet, serving

NAME = sdist.FILENAME
ROOT_NAME = "agora_python_server_sdk-2.4.10"
FORBIDDEN = "forbidden, and told so by a marker"


def packed(*members: tarfile.TarInfo, **files: bytes) -> bytes:
    """Return a source distribution with these files of its package, and further members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{ROOT_NAME}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return content.getvalue()


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there once anything of the source distribution has been run."""
    return tmp_path / "it-was-run"


@pytest.fixture
def source(marker: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A source distribution whose every program leaves the marker; it is the supported one."""
    program = f"open({str(marker)!r}, 'w').write({FORBIDDEN!r})\n".encode()
    content = packed(
        **{
            "PKG-INFO": b"Metadata-Version: 2.1\nName: agora-python-server-sdk\nVersion: 2.4.10\n",
            "setup.py": program + b"from setuptools import setup\nsetup()\n",
            "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "hook"\n'
            b'backend-path = ["."]\n',
            "hook.py": program,
            "agora/__init__.py": program,
            "agora/rtc/__init__.py": program,
        }
    )
    monkeypatch.setattr(sdist, "SHA256", hashlib.sha256(content).hexdigest())
    return content


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Configure pip: these settings, and none of the machine."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)

    def configure(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name}", value)

    configure(NO_INDEX="1", TARGET=str(tmp_path / "target"))
    return configure


def test_no_code_of_the_wrapper_is_run_by_its_installation(
    source: bytes, marker: Path, only_here: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / NAME).write_bytes(source)
    only_here(FIND_LINKS=str(folder))
    lines: list[str] = []
    wheel.install_wrapper(lines.append)
    assert (tmp_path / "target/agora/__init__.py").exists()
    assert (tmp_path / f"target/{ROOT_NAME}.dist-info/RECORD").exists()
    assert not marker.exists()
    assert lines[0] == f"fetching {(folder / NAME).as_uri()}"


def test_pip_alone_would_run_it(
    source: bytes, marker: Path, only_here: Callable[..., None], tmp_path: Path
) -> None:
    """What the test above guards against: such a download is no mere download."""
    (tmp_path / NAME).write_bytes(source)
    options = ["--find-links", str(tmp_path), "--dest", str(tmp_path / "got")]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", *options, f"{PACKAGE}==2.4.10"],
        capture_output=True,
        check=False,
    )
    assert marker.read_text() == FORBIDDEN


def test_a_given_file_is_used_without_an_index(
    source: bytes, only_here: Callable[..., None], tmp_path: Path
) -> None:
    file = tmp_path / "any name"
    file.write_bytes(source)
    assert sdist.obtain(pytest.fail, file) == source


def page(tmp_path: Path, kind: str, url: str) -> Path:
    folder = tmp_path / "simple" / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "json":
        files = [{"filename": "other.tar.gz", "url": "x"}, {"filename": NAME, "url": url}]
        (folder / "index.html").write_text(json.dumps({"files": files}))
    else:
        (folder / "index.html").write_text(f'<a href="x.whl">x</a><a href="{url}#sha256=0">y</a>')
    return folder


@pytest.fixture
def index_host(
    source: bytes, only_here: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """An index of this machine, over TLS; returns its URL."""
    (tmp_path / NAME).write_bytes(source)
    with serving(tmp_path, tmp_path, Redirecting) as (url, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        only_here(NO_INDEX="0", INDEX_URL=f"{url}/simple/")
        yield url


class Redirecting(Quiet):
    """Sends whoever asks for /moved/X to X, /away/X to the same place without TLS."""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        _, first, *rest = self.path.split("/")
        if first not in {"moved", "away", "round"}:
            super().do_GET()
            return
        places = {"moved": "/", "away": "http://localhost/", "round": "/round/"}
        self.send_response(302)
        self.send_header("Location", places[first] + "/".join(rest))
        self.end_headers()


@pytest.mark.parametrize("kind", ["json", "html"])
@pytest.mark.parametrize("where", [f"../../{NAME}", f"/moved/{NAME}", "absolute"])
def test_it_is_fetched_from_the_configured_index_over_tls(
    index_host: str, source: bytes, tmp_path: Path, kind: str, where: str
) -> None:
    page(tmp_path, kind, f"{index_host}/{NAME}" if where == "absolute" else where)
    assert sdist.obtain(lambda _: None) == source


def test_a_file_index_works(source: bytes, only_here: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(source)
    page(tmp_path, "html", f"../../{NAME}")
    nowhere = (tmp_path / "nowhere").as_uri()
    only_here(NO_INDEX="0", INDEX_URL=nowhere, EXTRA_INDEX_URL=(tmp_path / "simple").as_uri())
    assert sdist.obtain(lambda _: None) == source


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (f"/away/{NAME}", "only https is"),
        (f"http://localhost/{NAME}", "only https is"),
        (f"/round/{NAME}", "redirects"),
        (f"/none/{NAME}", "HTTP 404"),
        ("other.tar.gz", f"has no {NAME}"),
    ],
)
def test_a_file_missing_from_an_index_is_reported_with_the_manual_way(
    index_host: str, tmp_path: Path, where: str, words: str
) -> None:
    page(tmp_path, "html", where)
    with pytest.raises(LibraryUnavailable, match=words) as raised:
        sdist.obtain(lambda _: None)
    assert "--wrapper FILE" in raised.value.hint


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_index_with_an_untrusted_certificate_is_refused(
    index_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(tmp_path, "html", f"../../{NAME}")
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with pytest.raises(LibraryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        sdist.obtain(lambda _: None)


def test_another_file_of_that_name_is_refused_with_both_hashes(
    index_host: str, source: bytes, tmp_path: Path
) -> None:
    page(tmp_path, "html", f"../../{NAME}")
    (tmp_path / NAME).write_bytes(source + b"more")
    with pytest.raises(LibraryUnavailable) as raised:
        sdist.obtain(lambda _: None)
    assert hashlib.sha256(source + b"more").hexdigest() in raised.value.message
    assert sdist.SHA256 in raised.value.message


def test_the_password_of_an_index_is_used_only_for_its_own_links() -> None:
    here = "https://me:secretword@host:8443/simple/x/"
    for url in (f"../../{NAME}", f"https://host:8443/{NAME}"):
        found = index.link(here, f'<a href="{url}">'.encode(), NAME)
        assert found == f"https://me:secretword@host:8443/{NAME}"
    for url in (f"https://elsewhere/{NAME}", f"http://host:8443/{NAME}"):
        assert index.link(here, f'<a href="{url}">'.encode(), NAME) == url


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"[1]", b'{"files": 7}', b'{"files": [7, {}]}', b"<a><a href>"]
)
def test_an_invalid_page_has_no_links(content: bytes) -> None:
    assert index.link("https://host/", content, NAME) is None


def test_pips_configuration_is_read_as_pip_does() -> None:
    config = """:env:.index-url='https://mine/simple'
global.index-url='https://other/simple'
global.extra-index-url='https://a/ https://b'
install.find-links='/wheels'
what pip else says
"""
    found = index.places("x", config)
    assert found.pages == ("https://mine/simple/x/", "https://a/x/", "https://b/x/")
    assert found.folders == (Path("/wheels"),)
    assert index.places("x", "").pages == ("https://pypi.org/simple/x/",)
    assert index.places("x", "global.no-index='true'").pages == ()


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with file.open("wb") as stream:
        stream.truncate(sdist.LARGEST + 1)
    with pytest.raises(LibraryUnavailable, match=f"more than {sdist.LARGEST} bytes"):
        sdist.obtain(lambda _: None, file)
    with pytest.raises(LibraryUnavailable, match="is no file"):
        sdist.obtain(lambda _: None, Path("/dev/zero"))


def member(name: str, **settings: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in settings.items():
        setattr(info, key, value)
    return info


UNSOUND = {
    "up": packed(member(f"{ROOT_NAME}/agora/../../x")),
    "absolute": packed(member("/agora/x")),
    "symlink": packed(member(f"{ROOT_NAME}/agora/x", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": packed(member(f"{ROOT_NAME}/agora/x", type=tarfile.LNKTYPE, linkname="../x")),
    "device": packed(member(f"{ROOT_NAME}/agora/x", type=tarfile.CHRTYPE)),
    "bomb": packed(member(f"{ROOT_NAME}/agora/x", size=wheel.LARGEST_UNPACKED + 1)),
    "many": packed(*[member(f"{ROOT_NAME}/{n}") for n in range(wheel.MOST_FILES + 1)]),
    "cut": packed(member(f"{ROOT_NAME}/agora/x", size=99_999))[:-30],
    "text": b"<html>",
    "empty": b"",
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_damaged_source_makes_no_wheel(tmp_path: Path, name: str) -> None:
    with pytest.raises(LibraryUnavailable, match="not sound"):
        wheel.pack(UNSOUND[name], tmp_path)


# The native SDK, before anything is installed.


def sdk_zip(folder: Path, name: str = "sdk.zip") -> Path:
    file = folder / name
    with zipfile.ZipFile(file, "w") as zipped:
        for library in ("libagora_rtc_sdk.so", "libaosl.so"):
            zipped.writestr(f"agora_sdk/{library}", b"\x7fELF")
    return file


@pytest.fixture
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("the wrapper was installed")

    monkeypatch.setattr(install, "install_wrapper", never)


@pytest.mark.usefixtures("nothing_is_installed")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "none.zip cannot be read: No such file"),
        (b"<html>", "no sound zip"),
        (b"PK\x05\x06" + bytes(18), "has no agora_sdk"),
    ],
)
def test_a_wrong_archive_is_reported_before_anything_is_installed(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "none.zip"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LibraryUnavailable, match=words):
        install.install(lambda _: None, file)


@pytest.mark.usefixtures("nothing_is_installed")
def test_a_hash_that_is_required_is_enforced_before_anything_is_installed(tmp_path: Path) -> None:
    file = sdk_zip(tmp_path)
    with pytest.raises(LibraryUnavailable, match="is refused: its SHA-256 is"):
        install.install(lambda _: None, file, require_hash="0" * 64)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        install.install(lambda _: None, file, require_hash="abc")


def test_the_hash_of_an_archive_is_compared_with_those_that_are_known(tmp_path: Path) -> None:
    file = sdk_zip(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert "knows none" in archive.inspect(file)
    assert "as it must be" in archive.inspect(file, digest)
    both = {"x86_64": frozenset({digest}), "aarch64": frozenset({digest})}
    assert "as it must be" in archive.inspect(file, known=both)
    other = {name: frozenset({"0" * 64}) for name in both}
    with pytest.raises(LibraryUnavailable, match="refused"):
        archive.inspect(file, known=other)


def test_an_archive_that_is_too_large_or_holds_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sdk_zip(tmp_path)
    monkeypatch.setattr(archive, "LARGEST_UNPACKED", 7)
    with pytest.raises(LibraryUnavailable, match="7 bytes in it"):
        archive.inspect(file)
    monkeypatch.setattr(archive, "LARGEST", 9)
    with pytest.raises(LibraryUnavailable, match="more than 9 bytes"):
        archive.inspect(file)
    with pytest.raises(LibraryUnavailable, match="is no file"):
        archive.inspect(Path("/dev/zero"))


def test_only_the_sdk_is_unpacked_and_below_its_folder(tmp_path: Path) -> None:
    file = sdk_zip(tmp_path)
    with zipfile.ZipFile(file, "a") as zipped:
        zipped.writestr("agora_sdk/../../escaped", b"x")
        zipped.writestr("elsewhere", b"x")
    into = tmp_path / "a" / "b"
    into.mkdir(parents=True)
    archive.unpack(file, into)
    assert {path.name for path in into.iterdir()} == {"agora_sdk"}
    assert not (tmp_path / "escaped").exists()
