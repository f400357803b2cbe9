"""Sound inside relayd: blocks, bounded rings, the delay line and what may be heard."""
