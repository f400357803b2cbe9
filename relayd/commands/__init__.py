"""Commands by what they act on: a relay that runs, the machine."""
