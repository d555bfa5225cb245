"""Who may answer for a model by the settings: the targets of its route, or the providers that serve it."""

from broker.settings import Settings


def places(settings: Settings, model: str) -> list[tuple[str, str]]:
    """The names of providers, each with the model's name there, in the order in which they are tried; whether they have a price is not asked."""
    if model in settings.routes:
        return [(target.provider, target.model) for target in settings.routes[model]]
    providers = settings.providers.items()
    return [(name, model) for name, provider in providers if not provider.models or model in provider.models]
