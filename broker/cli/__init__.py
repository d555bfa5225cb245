"""The command `aibroker`. Start at `commands.py`, which lists them; what they decide is in modules of its own, without I/O."""

from broker.cli.application import main

__all__ = ["main"]
