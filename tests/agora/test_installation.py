"""What is found out about an installed wrapper without importing it, and how it is installed."""

import io
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.errors import LibraryUnavailable
from relayd.rtc.agora import install, installation
from tests.agora.cloud import ROOT
from tests.agora.library import download_url
from tests.agora.vendor import serving


@pytest.fixture
def wrapper(agora_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed wrapper that a test may change; returns the folder of `agora`."""
    shutil.copytree(agora_site, tmp_path / "site", ignore=shutil.ignore_patterns("lock"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site" / "agora"


def test_a_good_installation_is_named_with_its_version(wrapper: Path) -> None:
    found = installation.require()
    assert str(found) == "agora-python-server-sdk 2.4.10"
    assert found.libraries == wrapper / "agora_sdk"
    assert "agora" not in sys.modules


def test_the_worker_gets_the_librarys_folder_at_its_start(
    wrapper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    environment = installation.worker_environment()
    assert environment == {"LD_LIBRARY_PATH": f"{wrapper}/agora_sdk:/elsewhere"}


def test_the_url_is_the_one_that_the_wrapper_compares_with(wrapper: Path) -> None:
    assert installation.native_sdk_url(wrapper) == download_url(wrapper)


def test_on_another_machine_another_url_counts(
    wrapper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in installation.native_sdk_url(wrapper)


def spoil_by_line_feed(wrapper: Path) -> None:
    with (wrapper / "version.txt").open("a") as file:
        file.write("\n")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no library": (lambda w: (w / "agora_sdk/libagora_rtc_sdk.so").unlink(), "is missing"),
    "no second library": (lambda w: (w / "agora_sdk/libaosl.so").unlink(), "libaosl.so is missing"),
    "no version": (lambda w: (w / "version.txt").unlink(), "would replace it"),
    "another version": (lambda w: (w / "version.txt").write_text("https://x"), "would replace it"),
    "a line feed too many": (spoil_by_line_feed, "would replace it"),
    "a text for a library": (
        lambda w: (w / "agora_sdk/libaosl.so").write_text("<html>"),
        "no library at all",
    ),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_would_break_an_import_is_reported_with_the_command_that_fixes_it(
    wrapper: Path, spoil: str
) -> None:
    act, words = SPOILT[spoil]
    act(wrapper)
    with pytest.raises(LibraryUnavailable, match=words) as raised:
        installation.require()
    assert raised.value.hint == "relayd agora-install"
    assert "agora" not in sys.modules


def test_a_library_for_another_machine_is_reported(wrapper: Path) -> None:
    library = wrapper / "agora_sdk/libagora_rtc_sdk.so"
    head = bytearray(library.read_bytes())
    head[18:20] = (183 if platform.machine() == "x86_64" else 62).to_bytes(2, "little")
    library.write_bytes(head)
    with pytest.raises(LibraryUnavailable, match="made for another machine"):
        installation.require()


def test_a_machine_that_agora_does_not_support_is_reported(
    wrapper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(LibraryUnavailable, match="Linux on riscv64"):
        installation.require()


def test_a_missing_wrapper_is_reported() -> None:
    with pytest.raises(LibraryUnavailable, match=r"needs agora-python-server-sdk 2\.4\.10"):
        installation.require()


@pytest.mark.parametrize("version", ["2.4.9", "2.4.11", "3.0"])
def test_another_version_is_refused_since_units_differ(wrapper: Path, version: str) -> None:
    (metadata,) = wrapper.parent.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("Version: 2.4.10", f"Version: {version}"))
    with pytest.raises(LibraryUnavailable, match="units") as raised:
        installation.require()
    assert version in str(raised.value)
    assert raised.value.hint == "relayd agora-install"


# What the import itself does: each in a process of its own, which it would spoil.

TAMED = """
import ssl, sys, urllib.request
before = ssl._create_default_https_context, urllib.request.urlretrieve
from relayd.errors import LibraryUnavailable
try:
    import relayd.rtc.agora.sdk
    print("imported")
except LibraryUnavailable as fault:
    print(fault)
assert (ssl._create_default_https_context, urllib.request.urlretrieve) == before, "not restored"
context = ssl._create_default_https_context()
assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname, "no verification"
"""
UNCHECKED = "from relayd.rtc.agora import installation; installation.require = lambda: None\n"


def run(script: str, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script],
        env={**os.environ, "PYTHONPATH": f"{site}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_tls_is_verified_after_the_import_as_before(wrapper: Path) -> None:
    done = run(TAMED, wrapper.parent)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


def test_the_import_prints_nothing(wrapper: Path) -> None:
    done = run(TAMED, wrapper.parent)
    assert done.stderr == ""


def test_the_bare_wrapper_would_switch_verification_off(wrapper: Path) -> None:
    script = "import ssl, agora.rtc; print(repr(ssl._create_default_https_context().verify_mode))"
    assert "CERT_NONE" in run(script, wrapper.parent).stdout


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_by_line_feed, "wants to download https://"),
        (lambda w: (w / "agora_sdk/libaosl.so").unlink(), "OSError"),
        (lambda w: (w / "agora_sdk/libagora_rtc_sdk.so").write_text("x"), "could not read it"),
        (lambda w: shutil.copy(w / "agora_sdk/libaosl.so", w / "agora_sdk/libagora_rtc_sdk.so"),
         "AttributeError"),
    ],
    ids=["download", "library missing", "library unreadable", "symbol missing"],
)  # fmt: skip
def test_a_failing_import_is_one_clear_error_downloads_nothing_and_still_verifies(
    wrapper: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(wrapper)
    done = run(UNCHECKED + TAMED, wrapper.parent)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "relayd agora-install" in done.stdout
    assert "Traceback" not in done.stderr


# Installing.


@pytest.fixture
def archive(wrapper: Path, tmp_path: Path) -> Path:
    """The native SDK as its vendor ships it: a zip with a folder agora_sdk."""
    file = tmp_path / "sdk.zip"
    with zipfile.ZipFile(file, "w") as zipped:
        for library in (wrapper / "agora_sdk").glob("*.so"):
            zipped.write(library, f"agora_sdk/{library.name}")
    return file


def test_a_complete_installation_is_left_alone(wrapper: Path) -> None:
    lines: list[str] = []
    assert install.install(lines.append).folder == wrapper
    assert lines == ["agora-python-server-sdk 2.4.10 is installed"]


def test_a_library_from_a_file_is_installed_completely(wrapper: Path, archive: Path) -> None:
    shutil.rmtree(wrapper / "agora_sdk")
    lines: list[str] = []
    install.install(lines.append, archive)
    assert installation.require().folder == wrapper
    assert [line.split()[0] for line in lines] == ["SHA-256"]
    assert not list(wrapper.glob(".relayd-*"))


def half_an_sdk() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.writestr("agora_sdk/libaosl.so", b"")
    return packed.getvalue()


def damaged() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("agora_sdk/libaosl.so", b"relayd" * 9999)
    content = bytearray(packed.getvalue())
    content[55:75] = bytes(20)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"<html>no such file</html>", b"", half_an_sdk(), damaged()],
    ids=["page", "empty", "half", "damaged"],
)
def test_a_file_that_is_no_sdk_leaves_what_was_there(
    wrapper: Path, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "sdk.zip"
    file.write_bytes(content)
    with pytest.raises(LibraryUnavailable, match=r"sdk\.zip"):
        install.install(lambda _: None, file)
    assert installation.require().folder == wrapper
    assert not list(wrapper.glob(".relayd-*"))


def test_a_missing_file_is_reported(wrapper: Path, tmp_path: Path) -> None:
    with pytest.raises(LibraryUnavailable, match=r"none\.zip cannot be read: No such file"):
        install.install(lambda _: None, tmp_path / "none.zip")


def test_a_replacement_that_fails_half_way_is_undone(
    wrapper: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if target.name == self.name == "agora_sdk":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(LibraryUnavailable, match="No space left"):
        install.install(lambda _: None, archive)
    assert installation.require().folder == wrapper


def test_libraries_can_be_read_by_the_services_user_whatever_the_umask(
    wrapper: Path, archive: Path
) -> None:
    (wrapper / "version.txt").unlink()
    before = os.umask(0o077)
    try:
        install.install(lambda _: None, archive)
    finally:
        os.umask(before)
    assert all(file.stat().st_mode & 0o555 == 0o555 for file in (wrapper / "agora_sdk").iterdir())
    assert (wrapper / "version.txt").stat().st_mode & 0o444 == 0o444


def test_an_externally_managed_python_gets_the_hint_to_use_an_environment(
    sdist: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = "error: externally-managed-environment\n\nThis environment is externally managed\n"
    answer = subprocess.CompletedProcess([], 1, "", lines)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(
        LibraryUnavailable, match="pip install failed: externally-managed"
    ) as raised:
        install.install(lambda _: None, wrapper=sdist)
    assert "venv" in raised.value.hint


@pytest.fixture
def vendor(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host that serves the SDK over TLS, under a certificate of its own making."""
    with serving(archive.parent, tmp_path) as (server, certificate):
        url = f"{server}/{archive.name}"
        monkeypatch.setattr(install, "native_sdk_url", lambda _: url)
        monkeypatch.setattr(installation, "native_sdk_url", lambda _: url)
        yield certificate


def test_the_library_is_fetched_over_tls_that_is_verified(
    wrapper: Path, vendor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(wrapper / "agora_sdk")
    monkeypatch.setenv("SSL_CERT_FILE", str(vendor))
    lines: list[str] = []
    install.install(lines.append)
    assert installation.require().folder == wrapper
    assert lines[0].startswith("fetching https://localhost")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_host_with_an_untrusted_certificate_is_refused(wrapper: Path, vendor: Path) -> None:
    shutil.rmtree(wrapper / "agora_sdk")
    with pytest.raises(LibraryUnavailable, match="CERTIFICATE_VERIFY_FAILED") as raised:
        install.install(lambda _: None)
    assert "--from FILE" in raised.value.hint
    assert not (wrapper / "agora_sdk").exists()


@pytest.mark.relay
def test_one_command_installs_everything_and_pip_can_uninstall_it(
    archive: Path, sdist: Path, tmp_path: Path
) -> None:
    """From the real index, or its file at hand; only Agora's own host is not used."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    ours = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
    script = (
        f"from relayd.commands.app import app; app(['agora-install', '--from', {str(archive)!r}])"
    )
    environment = {**os.environ, "PYTHONPATH": ours, "PIP_FIND_LINKS": str(sdist.parent)}
    done = subprocess.run(
        [python, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ready: agora-python-server-sdk 2.4.10"
    (placed,) = (tmp_path / "venv").rglob("libagora_rtc_sdk.so")
    gone = subprocess.run(
        [python, "-m", "pip", "uninstall", "-y", "agora-python-server-sdk"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Successfully uninstalled" in gone.stdout
    assert placed.parents[1].name == "agora"
    assert not (placed.parents[1] / "rtc" / "agora_service.py").exists()
