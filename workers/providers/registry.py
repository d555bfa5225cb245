"""Which class answers for which `kind` of provider in the settings."""

from collections.abc import Mapping

from workers.providers.openai import OpenAI

REGISTRY: Mapping[str, type[OpenAI]] = {"openai": OpenAI}
"""Kind to class; each is made of `(base_url, api_key, service_tier=..., http2=...)`. Widen the type with the second kind."""
