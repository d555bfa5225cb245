"""x."""

import typer


def submit(context: typer.Context) -> None:
    """X."""
