"""Which class carries calls for which `transport` of the settings."""

from collections.abc import Callable, Mapping

from workers.transports.protocol import Transport
from workers.transports.rust import RustTransport


def _httpx() -> Transport:
    from workers.transports.httpx import HttpxTransport  # noqa: PLC0415 brings a command of its own with what that needs

    return HttpxTransport()


TRANSPORTS: Mapping[str, Callable[[], Transport]] = {"rust": RustTransport, "httpx": _httpx}
"""Setting to what makes the transport."""
