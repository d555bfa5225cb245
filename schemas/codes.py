"""Every code that a user can meet, with the sentence that says what to change: stable, documented, one word one meaning."""

from enum import StrEnum


class Code(StrEnum):
    """A stable code in a result, a dead letter's `aibroker-reason` or a client error.

    The comments group the codes by the place where they turn up; the sentence of each is in `MEANING`.
    """

    # dead letters: what is not a job
    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    UNKNOWN_VERSION = "unknown_version"
    INVALID_ID = "invalid_id"
    INVALID_TENANT = "invalid_tenant"
    ID_CONFLICT = "id_conflict"  # also a `rejected` result, generation 0
    INVALID_CONTROL = "invalid_control"

    # rejected: a job, but not one that can run
    INVALID_JOB = "invalid_job"
    UNKNOWN_FIELD = "unknown_field"
    NOT_SUPPORTED_YET = "not_supported_yet"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    DEADLINE_IN_PAST = "deadline_in_past"
    SCHEDULED_TOO_LATE = "scheduled_too_late"
    REPLY_UNKNOWN = "reply_unknown"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED_OPERATION = "unsupported_operation"
    COST_LIMIT = "cost_limit"
    QUOTA_EXCEEDED = "quota_exceeded"
    BLOCKED = "blocked"
    TAG_NOT_ALLOWED = "tag_not_allowed"
    BACKGROUND_REFUSED = "background_refused"

    # rejected or failed: what the provider said; expired: what stood in the way until the deadline
    PROVIDER_REJECTED = "provider_rejected"
    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_TOO_LONG = "context_too_long"
    PROVIDER_ERROR = "provider_error"
    ANSWER_MALFORMED = "answer_malformed"
    ANSWER_TOO_LARGE = "answer_too_large"
    OUTCOME_UNKNOWN = "outcome_unknown"
    NOT_SENT = "not_sent"
    RATE_LIMITED = "rate_limited"
    CREDENTIAL_REFUSED = "credential_refused"
    PROVIDER_QUOTA = "provider_quota"

    # expired with nothing in the way, cancelled, dead
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BATCH_LIMIT = "batch_limit"
    WORKERS_LOST = "workers_lost"
    INTERNAL = "internal"

    # dead letters and errors of the command: control messages that ask for what cannot be done
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_BATCH = "unknown_batch"
    ALREADY_ENDED = "already_ended"
    ALREADY_SUCCEEDED = "already_succeeded"
    NOT_ENDED = "not_ended"
    TOTAL_TOO_SMALL = "total_too_small"


MEANING: dict[Code, str] = {
    Code.UNDECODABLE: "The record is not one JSON object in UTF-8; send one object a record (no NaN, no lone surrogates).",
    Code.TOO_LARGE: "The record is over 1,000,000 bytes; send less, for example a reference to the content.",
    Code.UNKNOWN_VERSION: "The header ce_type names a message that this version does not know; send aibroker.job.v1 or no ce_type.",
    Code.INVALID_ID: "The id is not 1 to 256 printable ASCII characters; change it.",
    Code.INVALID_TENANT: "The tenant is not of the form [a-z0-9][a-z0-9._-]{0,62}; change it.",
    Code.ID_CONFLICT: "Another job with this id is known and its content differs; give the new job an id of its own.",
    Code.INVALID_CONTROL: "The control message is not one that is known; see the schema of control messages.",
    Code.INVALID_JOB: "A field of the job is missing or has a wrong value; the message names it.",
    Code.UNKNOWN_FIELD: "A field of the job is not known; the message names the nearest that is.",
    Code.NOT_SUPPORTED_YET: "The field belongs to a feature that this version does not have; leave it out.",
    Code.NUMBER_OUT_OF_RANGE: "A number does not fit 64 bits or a double; send it as a string.",
    Code.DEADLINE_IN_PAST: "The deadline was over before the job was sent; send a later one.",
    Code.SCHEDULED_TOO_LATE: "The not_before is later than jobs are kept here; name an earlier one, or send the job later.",
    Code.REPLY_UNKNOWN: "The reply topic or partition does not exist; make the topic or change reply_to.",
    Code.UNKNOWN_MODEL: "No route is configured for this model; use one that the message names or add a route.",
    Code.UNSUPPORTED_OPERATION: "No target of this model can do this operation; change the operation or the model.",
    Code.COST_LIMIT: "The job may cost more than its max_cost_usd; raise it or lower max_tokens.",
    Code.QUOTA_EXCEEDED: "The tenant's quota is used up, or the job is too large for it; wait for the next window, raise it, or send a smaller job.",
    Code.BLOCKED: "A guard blocked the content; change it as the message says.",
    Code.TAG_NOT_ALLOWED: "A tag's name or value is not one that the tenant may use; the message names those that are.",
    Code.BACKGROUND_REFUSED: "`background` makes no sense behind a queue; leave it out of the body.",
    Code.PROVIDER_REJECTED: "The provider refused the request; change the body as its message says.",
    Code.MODEL_NOT_FOUND: "The provider does not know the model; change the model or the route.",
    Code.CONTEXT_TOO_LONG: "The prompt does not fit the model's context; shorten it or use a larger model.",
    Code.PROVIDER_ERROR: "The provider failed at every attempt; run the job again later.",
    Code.ANSWER_MALFORMED: "The provider's answers could not be read; run the job again or change the target.",
    Code.ANSWER_TOO_LARGE: "The provider's answer is over 12 MB; ask for less.",
    Code.OUTCOME_UNKNOWN: "The call was cut after sending, so whether it ran is unknown; run the job again if a second run does no harm.",
    Code.NOT_SENT: "The provider could not be reached before the deadline; check its address and the network.",
    Code.RATE_LIMITED: "The provider's rate limit left no room before the deadline; send later or give more time.",
    Code.CREDENTIAL_REFUSED: "The provider refused the credential; renew the key.",
    Code.PROVIDER_QUOTA: "The provider's account has no credit left; top it up.",
    Code.EXPIRED: "The deadline passed before the job could end; give it more time.",
    Code.CANCELLED: "The job was cancelled.",
    Code.BATCH_LIMIT: "The batch passed a limit of its seal; seal it again with a higher one and run the job again.",
    Code.WORKERS_LOST: "Ten workers in a row died with this job; a person has to look at it.",
    Code.INTERNAL: "The worker met an error of its own with this job; report it with the job's id.",
    Code.UNKNOWN_JOB: "The tenant has no such job; look at the id and the tenant, or wait until the job has been read.",
    Code.UNKNOWN_BATCH: "The tenant has no such batch; look at the id and the tenant, or wait until one of its jobs has been read.",
    Code.ALREADY_ENDED: "The job has ended, so there is nothing to cancel; its result says how.",
    Code.ALREADY_SUCCEEDED: "The job succeeded, so its input is not kept and it cannot run again; submit it under another id.",
    Code.NOT_ENDED: "The job has not ended, so it cannot run again; cancel it first, or wait for its result.",
    Code.TOTAL_TOO_SMALL: "More jobs of the batch have arrived than the seal's total says; seal it again with the true number.",
}
"""The sentence of each code; a result's `message` is this one or a more precise one."""
