"""The client's side of aibroker, and what client and worker share. Start at `client/`; users do `from broker import Client`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.client import Client, Handle, Refused, Submitted

__all__ = ["Client", "Handle", "Refused", "Submitted"]


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for: who wants settings or topics only does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'broker' has no attribute {name!r}")
    from broker import client  # noqa: PLC0415 the reason is above

    found: object = getattr(client, name)
    return found
