"""Removes secrets from text: concealed strings, and what looks like a secret.

This is the second protection: settings hold secrets as `SecretStr` and `MediaUrl`, so our own
texts do not contain them. This one is for texts of others.
"""

import re

from relayd.urls.concealed import HIDDEN, KNOWN
from relayd.urls.safe import without_secrets

_NAMES = (
    r"(?:token|x-api-key|api[_-]?key|client[_-]?secret|passphrase|password|passwd|stream_?key"
    r"|streamid)"
)
_IN_TEXT = re.compile(
    rf"(?i)(?P<head>bearer\s+|(?:\b|_){_NAMES}[\"']?\s*=\s*[\"']?"
    # "akool.api_key: missing" is our own message about a wrong key.
    rf"|(?:\b|_)(?<!akool\.)(?<!control\.){_NAMES}[\"']?\s*:\s*[\"']?"
    r"|\bauthorization[\"']?\s*[:=]\s*[\"']?(?:[a-z]+\s+)?"
    r"|\bcookie[\"']?\s*:\s*[\"']?[\w.-]+="
    r"|\b(?:pwd|pass|auth|sig|signature|usr|user)=)"
    r"(?!\*\*\*|(?:missing|not|unknown|empty|tokens?)\b)"
    # A quoted text is one value; a password may have blanks.
    r"(?:(?<=\")(?:[^\"\\]|\\.)+|(?<=')(?:[^'\\]|\\.)+|[^\s\"'&,;}]+)"
)
_MOST_READ = 16 * 1024
"""Characters of a foreign text that are read, at most."""
_LONGEST_SECRET = 4 * 1024
"""Characters that a secret may have; no token or key is longer."""


def conceal(secret: str, *, lasting: bool = False) -> None:
    """Hide `secret` in everything logged or printed from now on.

    One that is not `lasting` is forgotten after dozens of later ones.
    """
    KNOWN.add(secret, lasting=lasting)


def redact(text: str) -> str:
    """Return `text` without concealed secrets, what may be secret in URLs, and bearer tokens."""
    text = without_secrets(KNOWN.replaced_in(text))
    return _IN_TEXT.sub(rf"\g<head>{HIDDEN}", text)


def printable(text: str) -> str:
    """Return `text` as valid UTF-8: undecodable bytes of file names become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def excerpt(text: str, longest: int) -> str:
    """Return the redacted beginning of a foreign text, at most `longest` characters.

    It is redacted before it is cut: half a secret would not be recognised.
    """
    read = redact(text[:_MOST_READ])
    if len(text) > _MOST_READ:  # a secret may be cut at the end
        read = read[: max(0, len(read) - _LONGEST_SECRET)] or HIDDEN
    return read if len(read) <= longest else f"{read[: longest - 1]}…"
