"""A command that is forked is the command: nothing else may come of it than from a fresh Python."""

import subprocess
from pathlib import Path

import pytest

from tests.support.interpreter import ENVIRONMENT
from tests.support.stage import RELAYD, relayd, running_interpreter


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["check", "-c", "bad.toml"], {"RELAYD_VIDEO__FPS": "few"}),
        (["sessions", "list", "-c", "good.toml"], {}),
    ],
)
def test_a_forked_command_says_and_ends_as_a_fresh_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
) -> None:
    (tmp_path / "bad.toml").write_text('[sorce]\n[video]\nwidth = "many"\n')
    (tmp_path / "good.toml").write_text(f'[state]\ndirectory = "{tmp_path}/state"\n')
    monkeypatch.chdir(tmp_path)
    fresh = subprocess.run(
        [RELAYD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT | environment,
    )
    forked = relayd(*arguments, **environment)
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stderr == fresh.stderr
    assert forked.stdout + forked.stderr


def test_a_forked_command_that_does_not_end_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        running_interpreter().run(["emulator", "--port", "0"], {}, within=1.0)
