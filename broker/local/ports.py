"""Free ports on this machine's own address."""

import errno
import socket

from broker.local.errors import PortTaken

HOST = "127.0.0.1"


def choose(wanted: int, server: str) -> int:
    """The port `wanted` if it is free; for 0, any that is.

    Raises:
        PortTaken: somebody listens on it, or we may not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            why = "is taken by another process" if error.errno == errno.EADDRINUSE else "may not be used by this user"
            raise PortTaken(
                f"port {wanted}, wanted for {server}, {why}: stop that process, or leave the port out and a free one is taken"
            ) from error
        port: int = probe.getsockname()[1]
        return port
