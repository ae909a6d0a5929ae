"""What can go wrong, in words for people. This module imports nothing of the project and knows
neither HTTP nor llama.cpp."""


class InferenceError(Exception):
    """Something a person should read: one sentence, and the field it is about if there is one."""

    code = "internal_error"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadRequest(InferenceError):
    code = "invalid_value"


class ContextTooLong(InferenceError):
    code = "context_length_exceeded"


class UnknownModel(InferenceError):
    code = "model_not_found"


class Overloaded(InferenceError):
    """The queue is full; try again after `retry_after` seconds."""

    code = "queue_full"

    def __init__(self, message: str, field: str | None = None, retry_after: int = 1) -> None:
        super().__init__(message, field)
        self.retry_after = retry_after


class NotReady(InferenceError):
    """No worker can take the request now: it is loading, restarting or shutting down."""

    code = "not_ready"
    retry_after = 1  # seconds

    def __init__(
        self, message: str, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message, field)
        self.retry_after = retry_after or self.retry_after


class ShuttingDown(NotReady):
    """No new request is taken, for good."""

    retry_after = 5  # by then another server may listen here


class Revoked(InferenceError):
    """Whoever asked may not ask any more."""

    code = "key_revoked"


class Cancelled(InferenceError):
    """Whoever runs the server has ended the request."""

    code = "cancelled"


class DeadlineExceeded(InferenceError):
    """The time that a request gave itself has passed."""

    code = "deadline_exceeded"


class NumericalError(InferenceError):
    code = "numerical_error"


class WorkerLost(InferenceError):
    code = "worker_lost"


class Poisonous(InferenceError):
    """The worker died of this request, more than once: it is not tried again."""

    code = "request_quarantined"


class ConfigError(InferenceError):
    """A configuration file or a command line asks for something that cannot be."""

    code = "config_error"


class DownloadError(InferenceError):
    code = "download_failed"


class BadModelFile(InferenceError):
    """A weights file that is missing, truncated or not a GGUF we can serve."""

    code = "bad_model_file"


class DoesNotFit(InferenceError):
    """The model does not fit the memory of this box; the message says what would."""

    code = "does_not_fit"
