"""Who may call the emulator, and what it costs: keys, tokens and credit.

Headers and codes as on the service's page: Authorization is checked first, x-api-key second;
code 1102 when both are missing, 1101 when the given one is wrong or expired.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from relayd.clock import Clock
from relayd.errors import CredentialsRefused, QuotaExhausted

INVALID_AUTHORIZATION = 1101
MISSING_AUTHORIZATION = 1102
INSUFFICIENT_QUOTA = 1104
KEPT_TOKENS = 1000
"""Tokens remembered at once; beyond that the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class AccountRules:
    """What the account accepts; an empty value accepts anything that is not empty."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token_life: float = 24 * 3600.0
    """s that a token of getToken is valid."""
    credit: float = 1000.0
    credit_per_minute: float = 0.0
    """What one open session costs; 0 leaves the credit unchanged."""


class Account:
    """The one account of the emulator."""

    def __init__(self, rules: AccountRules, clock: Clock) -> None:
        self._rules, self._clock = rules, clock
        self._token_ends: dict[str, float] = {}
        self.credit = rules.credit

    def issue_token(self, client_id: str, client_secret: str) -> tuple[str, float]:
        """Return a bearer token and its lifetime in s; CredentialsRefused for a wrong pair."""
        rules = self._rules
        if not (_same(rules.client_id, client_id) and _same(rules.client_secret, client_secret)):
            raise CredentialsRefused("Invalid clientId or clientSecret", code=INVALID_AUTHORIZATION)
        token = secrets.token_urlsafe(48)
        self._token_ends[token] = self._clock.now() + rules.token_life
        while len(self._token_ends) > KEPT_TOKENS:
            del self._token_ends[next(iter(self._token_ends))]
        return token, rules.token_life

    def expire_tokens(self) -> None:
        """Make every token issued so far invalid."""
        self._token_ends.clear()

    def authorize(self, headers: Mapping[str, str]) -> None:
        """Accept a request, or raise CredentialsRefused."""
        if authorization := headers.get("authorization", "").strip():
            scheme, _, token = authorization.partition(" ")
            good_until = self._token_ends.get(token.strip(), 0.0)
            if scheme.lower() == "bearer" and self._clock.now() < good_until:
                return
        elif key := headers.get("x-api-key", "").strip():
            if not self._rules.api_keys or any(_same(known, key) for known in self._rules.api_keys):
                return
        else:
            raise CredentialsRefused("Authorization cannot be empty", code=MISSING_AUTHORIZATION)
        raise CredentialsRefused(
            "Invalid authorization or the request token has expired", code=INVALID_AUTHORIZATION
        )

    def charge(self, open_seconds: float) -> None:
        """Deduct the cost of `open_seconds` of one session."""
        self.credit = max(0.0, self.credit - open_seconds * self._rules.credit_per_minute / 60)

    def require_credit(self) -> None:
        """Raise QuotaExhausted when nothing is left."""
        if self.credit <= 0:
            raise QuotaExhausted("Insufficient quota", code=INSUFFICIENT_QUOTA)

    def reset(self) -> None:
        """Reset the credit to its initial value."""
        self.credit = self._rules.credit


def _same(expected: str, given: str) -> bool:
    """Compare in constant time; an empty `expected` accepts anything that is not empty."""
    return (
        bool(given) if not expected else secrets.compare_digest(expected.encode(), given.encode())
    )
