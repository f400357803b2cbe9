"""The certificates that TLS trusts: the CA store of this machine, as its other programs do.

`SSL_CERT_FILE` and `SSL_CERT_DIR` name another store, as with OpenSSL. Only this module
imports truststore.
"""

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import truststore

from relayd.errors import ConfigError

UNTRUSTED_HINT = (
    "for a CA of your own: put it into this machine's store (sudo update-ca-certificates),"
    " or name its file in SSL_CERT_FILE; without any store: sudo apt install ca-certificates"
)
"""What to do about an untrusted certificate."""


def client_context(environment: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """Return the TLS context to verify servers with; reads the disk.

    Raises ConfigError that names the variable when its file or folder cannot be used.
    """
    environment = os.environ if environment is None else environment
    file, folder = environment.get("SSL_CERT_FILE"), environment.get("SSL_CERT_DIR")
    if file or folder:
        return _named_context(file, folder)
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def unverified_context() -> ssl.SSLContext:
    """Return a TLS context that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _named_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Trust only what the variables name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if file:
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError as fault:
            raise _unusable("SSL_CERT_FILE", file, "no PEM certificate is in it") from fault
        except OSError as fault:
            raise _unusable("SSL_CERT_FILE", file, fault.strerror or str(fault)) from fault
    if folder:
        for path in folder.split(os.pathsep):
            try:
                next(Path(path).iterdir(), None)  # OpenSSL ignores what it cannot read
            except OSError as fault:
                raise _unusable("SSL_CERT_DIR", path, fault.strerror or str(fault)) from fault
            context.load_verify_locations(capath=path)
    return context


def _unusable(variable: str, path: str, why: str) -> ConfigError:
    return ConfigError(
        [f"{variable}={path} (environment): {why}; name CA certificates in PEM, or unset it"]
    )
