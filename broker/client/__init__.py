"""The client library: submit jobs, await their results, cancel them, follow batches. Start at `client.py`."""

from broker.client.client import Client
from broker.client.handle import Handle
from broker.client.jobs import Refused
from broker.client.submission import Submitted

__all__ = ["Client", "Handle", "Refused", "Submitted"]
