"""Run a shell command in a throw-away virtual machine that has a real v4l2loopback.

    python -m tests.vm.run [options] 'command'

What the command says is streamed to stdout, byte for byte; its exit status is ours, 124 when
the time limit ended it, 125 when there is no machine to be had.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.vm import cache
from tests.vm.cache import CannotBoot
from tests.vm.guest import BOOT_LIMIT, MODULE_OPTIONS, Failed, Guest, Machine

TIME_LIMIT, NO_MACHINE = 124, 125


def main() -> int:
    """Boot, run, and give the exit status."""
    options = _options()
    try:
        if options.prepare:
            for series in cache.RELEASES:
                _say(f"ready, with v4l2loopback {cache.prepare(series).loopback}")
            return 0
        with Guest(_machine(options)) as guest:
            return _run(guest, options)
    except CannotBoot as fault:
        _say(str(fault))
        return NO_MACHINE


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.vm.run", description=__doc__.split("\n", 1)[0])
    parser.add_argument("command", nargs="?", default="true")
    parser.add_argument("-l", dest="series", choices=cache.RELEASES, default="0.12",
                        help="v4l2loopback's series (default 0.12)")  # fmt: skip
    parser.add_argument("-o", dest="modopts", default=MODULE_OPTIONS,
                        help="its parameters; - leaves it unloaded")  # fmt: skip
    parser.add_argument("-S", dest="systemd", action="store_true", help="systemd as PID 1")
    parser.add_argument("-t", dest="limit", type=float, default=300.0, help="time limit, s")
    parser.add_argument("-m", dest="memory", type=int, default=2048, help="memory, MiB")
    parser.add_argument("-s", dest="processors", type=int, help="virtual processors")
    parser.add_argument("-R", dest="root", type=Path, default=Path("/"), help="the guest's root")
    parser.add_argument("-w", dest="shared", type=Path, help="a folder it may write to")
    parser.add_argument("-v", dest="verbose", action="store_true",
                        help="times, and what the kernel said, on stderr")  # fmt: skip
    parser.add_argument("--prepare", action="store_true", help="only fill the cache")
    return parser.parse_args()


def _machine(options: argparse.Namespace) -> Machine:
    return Machine(
        series=options.series,
        options=None if options.modopts == "-" else options.modopts,
        systemd=options.systemd,
        memory=options.memory,
        processors=options.processors or Machine().processors,
        root=options.root.resolve(),
        shared=options.shared.resolve() if options.shared else None,
        limit=BOOT_LIMIT + options.limit + 10,
    )


def _run(guest: Guest, options: argparse.Namespace) -> int:
    def show(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    began = time.monotonic()
    process = guest.start(options.command, on_output=show)
    try:
        status = process.wait(options.limit)
    except Failed as fault:
        _say(str(fault).splitlines()[0])
        return NO_MACHINE if guest.gone else TIME_LIMIT
    finally:
        if options.verbose:
            took = time.monotonic() - began
            sys.stderr.write(guest.console())
            _say(
                f"v4l2loopback {guest.loopback}: boot {guest.booted_in:.1f} s, command {took:.1f} s"
            )
    return 128 - status if status < 0 else status


def _say(text: str) -> None:
    sys.stderr.write(f"vm: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
