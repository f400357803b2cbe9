"""`python -m relayd` is `relayd`."""

from relayd.cli import main

main()
