"""relayd: reads a video source, has its face swapped live, shows the result as a webcam."""

__version__ = "0.1.0"
