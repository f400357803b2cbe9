"""Print how much of each room the tests have run, branch by branch; fail below `--floor PERCENT`.

`make test` calls it after pytest, with a floor where all tests were run. What runs in processes of
its own is left out, see [tool.coverage.run] in pyproject.toml.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import PurePath

Room = Counter[str]


def main() -> None:
    """Read .coverage; exit with 1 below the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floor", type=float, default=0.0, help="percent of all branches")
    floor = parser.parse_args().floor
    command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", "-"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rooms: defaultdict[str, Room] = defaultdict(Counter)
    for path, file in json.loads(report)["files"].items():
        room = PurePath(path).parts[1]
        rooms[room].update({key: n for key, n in file["summary"].items() if isinstance(n, int)})
    total = sum(rooms.values(), Counter())
    sys.stdout.write("coverage       lines  branches\n")
    for room, counts in [*sorted(rooms.items()), ("in all", total)]:
        lines = share(counts, "covered_lines", "num_statements")
        sys.stdout.write(f"{room:12} {lines:6.1f} % {branches(counts):6.1f} %\n")
    if branches(total) < floor:
        sys.exit(f"{branches(total):.1f} % of the branches were run, {floor:g} % are wanted")


def branches(counts: Room) -> float:
    """Return the share of branches that were run, in percent."""
    return share(counts, "covered_branches", "num_branches")


def share(counts: Room, covered: str, of: str) -> float:
    """Return a share in percent; where there is nothing, all of it."""
    return 100 * counts[covered] / counts[of] if counts[of] else 100.0


if __name__ == "__main__":
    main()
