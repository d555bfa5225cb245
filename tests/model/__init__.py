"""Checks the models of `docs/protocol/` with TLC; start at `__main__.py`."""
