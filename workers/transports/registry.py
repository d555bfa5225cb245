"""Which class carries calls for which `transport` of the settings."""

from collections.abc import Callable, Mapping

from workers.transports.httpx import HttpxTransport
from workers.transports.protocol import Transport
from workers.transports.rust import RustTransport

TRANSPORTS: Mapping[str, Callable[[], Transport]] = {"rust": RustTransport, "httpx": HttpxTransport}
"""Setting to class."""
