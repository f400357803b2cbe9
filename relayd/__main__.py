"""Entry point of every command; `python -m relayd` is the same as `relayd`."""

import sys

from relayd.process.early_signals import command_of, handle_early_signals


def main() -> None:
    """Handle signals, then import and run the command line."""
    handle_early_signals(command_of(sys.argv))
    from relayd.commands.app import main as run_command_line  # noqa: PLC0415 - slow import

    run_command_line()


if __name__ == "__main__":
    main()
