"""The variables that lead a command or a worker to a local stack."""

from pathlib import Path

from broker import settings
from broker.settings import Settings


def of_file(file: Path | None) -> dict[str, str]:
    """The variable that names the settings file, for a child."""
    return {settings.FILE_VARIABLE: str(file)} if file else {}


def of_stack(kafka: str, mongo_url: str, database: str) -> dict[str, str]:
    """The variables that lead to a stack's servers."""
    said = {"AIBROKER_KAFKA": kafka, "AIBROKER_MONGO": mongo_url}
    return said if database == Settings().database else {**said, "AIBROKER_PREFIX": database}


def of_simulator(url: str | None, known: Settings) -> dict[str, str]:
    """The variables that make the simulator a provider, where the settings name none."""
    if url is None or known.providers:
        return {}
    return {"AIBROKER_PROVIDERS_SIMULATOR_BASE_URL": f"{url}/v1", "AIBROKER_PROVIDERS_SIMULATOR_API_KEY": "simulated"}
