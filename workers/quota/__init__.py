"""Quotas: what a tenant may use in a day, held before a call and settled after it, correct over several workers. Start at `protocol.py`."""
