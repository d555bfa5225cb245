"""`aibroker usage analyst`: makes the read-only role for those who ask the ledger, and a user that has it."""

import asyncio
import secrets
from typing import Annotated

import typer

from broker import mongo
from broker.cli import database, screen
from broker.cli.invocation import DataOption, Invocation
from broker.settings import Settings
from broker.usage.views import READABLE

ROLE = "analyst"


def analyst(
    context: typer.Context,
    *,
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Also make this user, with the role and a password that is shown once."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Make or renew the role `analyst`: it reads the ledger, its kept sums and its views, and nothing that holds prompts or answers.

    The settings' address of MongoDB has to be one that may make roles. Done again, it brings the role up to date.
    """
    invocation: Invocation = context.obj
    settings = invocation.settings(data)
    password = secrets.token_urlsafe(24) if user else None
    asyncio.run(_make(settings, user, password))
    screen.say(f"the role {ROLE} of the database {settings.database} reads {', '.join(READABLE)}")
    if user:
        screen.say(f"the user {user} has it; the password, which is shown only now, follows")
        screen.write_text(str(password))


async def _make(settings: Settings, user: str | None, password: str | None) -> None:
    async with database.opened(settings) as opened:
        await mongo.prepare(opened)
        await grant(opened)
        if user:
            await opened.command("createUser", user, pwd=password, roles=[ROLE])


async def grant(opened: mongo.Database) -> None:
    """Make the role, or give it what it should have."""
    privileges = [{"resource": {"db": opened.name, "collection": name}, "actions": ["find"]} for name in READABLE] + [
        {"resource": {"db": opened.name, "collection": ""}, "actions": ["listCollections"]}
    ]
    known = await opened.command("rolesInfo", ROLE)
    verb = "updateRole" if known["roles"] else "createRole"
    await opened.command(verb, ROLE, privileges=privileges, roles=[])
