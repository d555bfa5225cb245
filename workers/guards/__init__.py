"""Guards check, and may change, what goes to a provider and what comes back. Start at `chain.py`."""
