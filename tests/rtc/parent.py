"""Run by tests as a program, to be killed: a parent that keeps its RTC worker in a link.

    parent.py TARGET

TARGET is a LinkTarget as JSON. It prints the worker's process id, then each event of the link.
"""

import json
import sys
import time

import numpy as np

from relayd.media.frames import SourceFrame
from relayd.rtc.kinds import worker_environment
from relayd.rtc.link import LinkTarget
from relayd.rtc.process import RtcWorker

target = LinkTarget.from_json(json.loads(sys.argv[1]))
worker = RtcWorker(
    target.geometry,
    kind=target.kind,
    environment=worker_environment(target.kind),
    on_event=lambda event: print(event.kind.value, flush=True),  # noqa: T201 - its output
    on_picture=lambda _frame: None,
)
worker.start()
print(worker.pid, flush=True)  # noqa: T201 - as above
worker.join(target)
picture = np.full(target.geometry.shape, 90, np.uint8)
while True:
    worker.publish(SourceFrame(picture, time.monotonic()))
    time.sleep(0.05)
