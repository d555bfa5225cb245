"""Writes JSON Schema, AsyncAPI and the page of codes from the models: `python -m schemas.generate`; `--check` says what is not current."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas.alert import ALERT_TYPE, AlertEvent
from schemas.asyncapi import document
from schemas.batch import BATCH_TYPE, BatchEvent
from schemas.codes import MEANING
from schemas.control import CONTROL_TYPE, Control
from schemas.job import JOB_TYPE, Job
from schemas.result import RESULT_TYPE, Result
from schemas.usage import USAGE_TYPE, UsageEvent

HERE = Path(__file__).parent
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: tuple[tuple[str, type[BaseModel]], ...] = (
    (JOB_TYPE, Job),
    (RESULT_TYPE, Result),
    (USAGE_TYPE, UsageEvent),
    (BATCH_TYPE, BatchEvent),
    (ALERT_TYPE, AlertEvent),
    (CONTROL_TYPE, Control),
)
_CODES = """# Codes

Every code that a result, a dead letter or a refused submission can carry, and what to do about it. Codes are stable; a message may say more than the
sentence here. A job that waited until its deadline is `expired` with the code of what stood in its way last; only where there was nothing (it had no
turn), its code is `expired`, too. This page is made by `make schemas`.

| code | meaning |
|---|---|
"""


def generated() -> dict[Path, str]:
    """The text of every generated file, by its path below this package."""
    schemas = {Path("json", f"{kind.split('.')[1]}.schema.json"): _schema(kind, model) for kind, model in _MODELS}
    _, definitions = models_json_schema(
        [(model, "validation") for _, model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    files = {path: _json(schema) for path, schema in schemas.items()}
    files[Path("asyncapi.json")] = _json(document(definitions["$defs"]))
    files[Path("CODES.md")] = _CODES + "".join(f"| `{code}` | {meaning} |\n" for code, meaning in MEANING.items())
    return files


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` only compare; return the exit code."""
    if set(arguments) - {"--check"}:
        sys.stderr.write("usage: python -m schemas.generate [--check]\n")
        return 2
    files = {HERE / path: text for path, text in generated().items()}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        sys.stderr.writelines(f"{path.relative_to(HERE.parent)} is not current: run `make schemas`\n" for path in stale)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(HERE.parent)}\n")
    return 0


def _schema(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": _DIALECT, "$id": f"urn:{kind.replace('.', ':')}", **model.model_json_schema()}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
