"""Runs in the guest: the RTC worker, with time for what an emulated machine needs so long for."""

from relayd.rtc import worker
from relayd.rtc.webrtc import link

LINK_LIMIT = 80.0
"""s to exchange the offers of a link, and to connect."""

if __name__ == "__main__":
    link.POST_TIMEOUT = link.CONNECT_TIMEOUT = LINK_LIMIT
    worker.main()
