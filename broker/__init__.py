"""The client's side of aibroker, and what client and worker share. Start at `client.py`."""
