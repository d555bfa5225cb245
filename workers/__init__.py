"""The worker: it reads jobs, calls providers and writes results and the ledger. Start at `pipeline.py`."""
