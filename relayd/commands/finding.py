"""What `relayd check` finds: one line of its report."""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from relayd.errors import ExitCode, RelaydError
from relayd.logs import redact


class CheckStatus(Enum):
    """How a check came out."""

    OK = "ok"
    """Works."""
    WARNING = "warning"
    """Works, or may work; worth a look."""
    FAILED = "failed"
    """`run` would not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    part: str
    verdict: CheckStatus
    why: str
    hint: str = ""
    exit_code: ExitCode = ExitCode.CLEAN

    @classmethod
    def ok(cls, part: str, why: str) -> Self:
        """It works; `why` says what was seen."""
        return cls(part, CheckStatus.OK, why)

    @classmethod
    def warning(cls, part: str, why: str, hint: str = "") -> Self:
        """It may work."""
        return cls(part, CheckStatus.WARNING, why, hint)

    @classmethod
    def failed(cls, part: str, fault: RelaydError | str, code: ExitCode = ExitCode.CONFIG) -> Self:
        """It does not work; a RelaydError brings its own hint and exit code."""
        if isinstance(fault, RelaydError):
            return cls(part, CheckStatus.FAILED, fault.message, fault.hint, fault.exit_code)
        return cls(part, CheckStatus.FAILED, fault, "", code)

    @property
    def is_failure(self) -> bool:
        """Whether `run` would not work."""
        return self.verdict is CheckStatus.FAILED

    def as_line(self) -> str:
        """One line for a person."""
        hint = f"\n           -> {self.hint}" if self.hint else ""
        return f"{self.verdict.value:8} {self.part}: {self.why}{hint}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a program."""
        return {
            **asdict(self),
            "verdict": self.verdict.value,
            "why": redact(self.why),
            "hint": redact(self.hint),
            "mend": redact(self.hint),  # its name in 0.1, for one release
            "exit_code": int(self.exit_code),
        }
