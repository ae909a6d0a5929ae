"""A worker's refusal becomes the error that it was there, for whoever asked.

Errors travel by their code. Knows no request.
"""

from inference.errors import (
    BadRequest,
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    InferenceError,
    NotReady,
    NumericalError,
    Overloaded,
    Poisonous,
    Revoked,
    WorkerLost,
)
from inference.journal import Answer
from inference.wire import Rejected

_ERRORS = {
    error.code: error
    for error in (
        BadRequest,
        Cancelled,
        ContextTooLong,
        DeadlineExceeded,
        NotReady,
        NumericalError,
        Overloaded,
        Poisonous,
        Revoked,
        WorkerLost,
    )
}


def expect(answer: Answer) -> Answer:
    """`answer`, unless it is a rejection. Raises what the rejection says."""
    if isinstance(answer, Rejected):
        raise _ERRORS.get(answer.code, InferenceError)(answer.message, answer.field)
    return answer
