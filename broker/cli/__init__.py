"""The command `aibroker`. Start at `application.py`, which lists its commands; what they decide is in modules of its own, without I/O."""

from broker.cli.application import main

__all__ = ["main"]
