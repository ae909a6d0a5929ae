"""What can go wrong between a conversation and its place."""

from inference import BadRequest, InferenceError


class StoreFailed(InferenceError):
    code = "not_stored"

    def __init__(self) -> None:
        super().__init__("The database could not be used; the server's log says why.")


class StoreFull(InferenceError):
    """There is as much as one key may have."""

    code = "too_many_stored"


class SearchTooLong(InferenceError):
    code = "search_too_long"

    def __init__(self) -> None:
        super().__init__(
            "There is too much to look through: the search was ended. Look for something that was "
            "said lately, or delete some conversations first.",
            "query",
        )


class UnknownSession(InferenceError):
    code = "session_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such session; it may have been deleted.", "session_id")


class UnknownMessage(BadRequest):
    code = "message_not_found"

    def __init__(self, field: str = "parent") -> None:
        super().__init__("There is no such message in this session.", field)


class SessionBusy(InferenceError):
    """Its answer is still being written."""

    code = "session_busy"

    def __init__(self) -> None:
        super().__init__("An answer is still being written in this session; stop it first.")


class UnknownAgent(InferenceError):
    code = "agent_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such agent.")


class NameTaken(InferenceError):
    code = "name_taken"
