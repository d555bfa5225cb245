"""Where a job lives: the Protocol of the store, MongoDB behind it, and one in memory for unit tests. Start at `protocol.py`."""
