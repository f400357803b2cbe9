"""The findings of `relayd check`: one line of its report each."""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from relayd.errors import ExitCode, RelaydError
from relayd.logs import redact


class CheckStatus(Enum):
    """The result of a check."""

    OK = "ok"
    """Works."""
    WARNING = "warning"
    """Works, or may work; should be looked at."""
    FAILED = "failed"
    """`run` would not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do about it."""

    part: str
    verdict: CheckStatus
    why: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.CLEAN

    @classmethod
    def ok(cls, part: str, why: str) -> Self:
        """Return a finding that it works; `why` says what was found."""
        return cls(part, CheckStatus.OK, why)

    @classmethod
    def warning(cls, part: str, why: str, hint: str = "") -> Self:
        """Return a finding that it may work."""
        return cls(part, CheckStatus.WARNING, why, hint)

    @classmethod
    def failed(cls, part: str, fault: RelaydError | str, code: ExitCode = ExitCode.CONFIG) -> Self:
        """Return a finding that it does not work; a RelaydError has its own hint and exit code."""
        if isinstance(fault, RelaydError):
            return cls(part, CheckStatus.FAILED, fault.message, fault.hint, fault.exit_code)
        return cls(part, CheckStatus.FAILED, fault, "", code)

    @property
    def is_failure(self) -> bool:
        """Whether `run` would not work."""
        return self.verdict is CheckStatus.FAILED

    def as_line(self) -> str:
        """Return it as text for a person."""
        hint = f"\n           -> {self.hint}" if self.hint else ""
        return f"{self.verdict.value:8} {self.part}: {self.why}{hint}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            **asdict(self),
            "verdict": self.verdict.value,
            "why": redact(self.why),
            "hint": redact(self.hint),
            "mend": redact(self.hint),  # its name in 0.1, for one release
            "exit_code": int(self.exit_code),
        }
