"""The first thing a stranger does."""

import os
import re
import subprocess
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from relayd.commands.demo import emulator
from relayd.emulator.swap import SourceFace, decode_image, likeness
from tests.support.stage import PERSON, PORTRAIT, RELAYD


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "out.mp4").write_text("precious")
    proxies = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "nonsense:", "NO_PROXY": "::1/128"}
    done = subprocess.run(
        [
            RELAYD,
            *[
                "demo",
                "--no-camera",
                "--no-microphone",
                "--port",
                "0",
                "--seconds",
                "12",
                "--record",
                "out.mp4",
            ],
        ],
        cwd=folder,
        env=os.environ | proxies,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done, folder / "out-1.mp4"


def test_the_demo_ends_well_and_sums_up(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stderr
    assert re.search(r"delay, glass to glass +p50 \d+ ms, p95 \d+ ms", done.stdout)
    assert re.search(r"frames swapped +\d\d+", done.stdout)
    assert "Traceback" not in done.stderr
    assert "Live" in done.stderr
    assert re.search(r"recorded to +out-1\.mp4", done.stdout), "the name that it really has"


def test_the_recording_is_640x480_at_20_fps_and_its_face_is_the_portraits(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    face = SourceFace.prepare(decode_image(PORTRAIT.read_bytes()))
    with av.open(str(demo[1])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (640, 480)
        frames = list(container.decode(stream))
        pictures = [frame.to_ndarray(format="bgr24") for frame in frames]
        times = [frame.time for frame in frames if frame.time is not None]
    assert len(pictures) > 200
    assert np.median(np.diff(times)) == pytest.approx(0.05, abs=0.005)
    recorded = [likeness(picture, face) for picture in pictures[-100::10]]
    with av.open(str(PERSON)) as container:
        originals = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    before = [likeness(picture, face) for picture in originals[::25]]
    swapped = [value for value in recorded if value is not None]
    unswapped = [value for value in before if value is not None]
    assert len(swapped) >= 6
    assert sum(swapped) / len(swapped) > sum(unswapped) / len(unswapped) + 0.15


def test_the_clips_voice_is_in_the_recording_and_its_lip_sync_is_measured(
    demo: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, recording = demo
    assert re.search(r"sound after picture +p50 [+-]\d+ ms, p95 [+-]\d+ ms", done.stdout)
    with av.open(str(recording)) as container:
        loudest = [np.abs(part.to_ndarray()).max() for part in container.decode(audio=0)]
    assert max(loudest) > 0.3


async def test_the_demos_service_gives_its_sessions_to_the_demo_alone() -> None:
    """Whoever could ask for a session's token could watch it: the true face where none is found."""
    api = "/api/open/v3"
    pair = {"clientId": "id", "clientSecret": "secret"}
    async with (
        emulator("the-demos-own-key") as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        seen = {
            key: (
                await client.get(f"{api}/faceswap/quota/info", headers={"x-api-key": key})
            ).json()["code"]
            for key in ("the-demos-own-key", "demo")
        }
        token = (await client.post(f"{api}/getToken", json=pair)).json()
    assert seen["the-demos-own-key"] == 1000
    assert seen["demo"] != 1000
    assert token["code"] != 1000
