"""The one error tree: every error that a user of the client, the command or a worker can meet.

    AibrokerError
    ├── SettingsError            settings_invalid       no retry
    ├── UsageError               wrong_use              no retry
    ├── ServiceMissing           service_missing        retry
    │   ├── KafkaMissing         kafka_missing
    │   ├── MongoMissing         mongo_missing
    │   └── TopicMissing         topic_missing
    ├── JobRefused               the job's own code     no retry      (the client saw it before sending)
    ├── ControlRefused           the control's own code no retry      (what was asked for cannot be done)
    ├── ResultTimeout            result_timeout         retry         (the job goes on)
    ├── ResultLost               result_lost            retry         (the reply was not kept; ask again by id)
    ├── ClientClosed             client_closed          no retry
    ├── TransportError           a failed call          see workers/transports/errors.py
    └── LocalError               local_*                see broker/local/errors.py

Each has a stable `code`, says by `retryable` whether the same call may succeed later, and its message is a sentence with the remedy.
"""


class AibrokerError(Exception):
    """Something that a user can act upon."""

    code = "error"
    retryable = False


class SettingsError(AibrokerError):
    """The settings are wrong: file, line, field, and what is allowed."""

    code = "settings_invalid"


class UsageError(AibrokerError):
    """The command or the call was used wrongly."""

    code = "wrong_use"


class ServiceMissing(AibrokerError):
    """A service that is needed cannot be reached or is not what is needed."""

    code = "service_missing"
    retryable = True


class KafkaMissing(ServiceMissing):
    """Kafka cannot be reached, or is too old."""

    code = "kafka_missing"


class MongoMissing(ServiceMissing):
    """MongoDB cannot be reached, is too old, or is no replica set."""

    code = "mongo_missing"


class TopicMissing(ServiceMissing):
    """A topic does not exist; `aibroker topics` makes all."""

    code = "topic_missing"


class JobRefused(AibrokerError):
    """The job cannot be sent as it is: the code is that of the result which it would get."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ControlRefused(AibrokerError):
    """What was asked of a job or a batch cannot be done; the code is that of the dead letter which the message would become."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ResultTimeout(AibrokerError):
    """No result came in time; the job goes on, and the handle can be asked again."""

    code = "result_timeout"
    retryable = True


class ResultLost(AibrokerError):
    """The reply could not be read any more; `await_result` with the job's id has it sent again."""

    code = "result_lost"
    retryable = True


class ClientClosed(AibrokerError):
    """The client was closed while something waited on it."""

    code = "client_closed"
