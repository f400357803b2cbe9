"""Which outputs are lost, and why."""

from collections.abc import Container, Iterable

from relayd.logs import LogEvent, get
from relayd.output.base import OutputChange, OutputEvent
from relayd.relay.status import OUTPUT_OK, OUTPUT_PENDING

_log = get("relay")


class OutputFaults:
    """Logs the events of outputs, and keeps the reason for each lost one."""

    def __init__(self) -> None:
        """Start with no lost output."""
        self._reasons: dict[str, str] = {}
        """By name at the event: an output may get its name only when it is opened."""
        self.recovered = 0
        """Times that a lost output came back."""

    def __bool__(self) -> bool:
        """Whether any output is lost."""
        return bool(self._reasons)

    def handle(self, event: OutputEvent) -> None:
        """Log and record an event of an output."""
        if event.change is OutputChange.BACK:
            self.recovered += self._reasons.pop(event.output, None) is not None
            of_file = {"file": event.file} if event.file else {}
            _log.info(LogEvent.OUTPUT_BACK, output=event.output, **of_file)
        else:
            self._reasons[event.output] = event.reason
            _log.error(LogEvent.OUTPUT_LOST, output=event.output, reason=event.reason)

    def states(self, names: Iterable[str], pending: Container[str]) -> dict[str, str]:
        """Return the status text of each output; `pending` are those without a connection yet."""
        return {
            name: self._reasons.get(name) or (OUTPUT_PENDING if name in pending else OUTPUT_OK)
            for name in names
        }

    def added_to(self, reason: str) -> str:
        """Return the reason of a state, and why outputs are lost if it does not say so."""
        faults = (f"output {name}: {why}" for name, why in self._reasons.items())
        more = [text for text in faults if not reason or reason not in text]
        return "; ".join(filter(None, (reason, *more)))
