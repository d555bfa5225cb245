"""Control messages as records: checked as a worker would check them, under the key that keeps what is said of one thing in order."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from broker.errors import UsageError
from broker.lanes import Record
from broker.outgoing import event_headers
from broker.settings import Settings
from schemas.control import CONTROL_TYPE, Control


def control_record(settings: Settings, message: Mapping[str, object], *, event_id: str, now: datetime) -> Record:
    """Make the record of a control message; fields that are None count as not there.

    Raises:
        UsageError: The message asks for nothing that there is.
    """
    given = {name: value for name, value in message.items() if value is not None}
    try:
        control = Control.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, problem["loc"])) or str(given.get("action", "action"))
        raise UsageError(f"{field}: {problem['msg'].removeprefix('Value error, ')}") from None
    subject = f"{control.tenant}/{control.job_id}" if control.job_id is not None else control.scope
    headers = event_headers(CONTROL_TYPE, event_id, subject, settings.source, at=now, trace=None)
    value = control.model_dump_json(exclude_unset=True).encode()
    return Record(settings.topic("jobs.control"), value, control.key.encode(), headers)
