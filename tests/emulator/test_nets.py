import subprocess
import sys

AT_ONCE = """
import threading
from relayd.emulator.swap import nets
start, faults = threading.Barrier(8), []
def load():
    start.wait()
    try:
        nets.landmark_net()
    except Exception as fault:
        faults.append(fault)
threads = [threading.Thread(target=load) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not faults, faults
"""


def test_many_threads_may_load_their_nets_at_once_in_a_new_process() -> None:
    """OpenCV alone fails this about once in fifteen runs."""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", AT_ONCE], check=True, timeout=30)
