"""Where every command starts; `python -m relayd` is `relayd`."""

import sys

from relayd.early import command_of, handle_early_signals


def main() -> None:
    """Handle signals, then import and run the command line."""
    handle_early_signals(command_of(sys.argv))
    from relayd.cli import main as run_command_line  # noqa: PLC0415 - imports a lot

    run_command_line()


if __name__ == "__main__":
    main()
