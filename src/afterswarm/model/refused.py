"""The one error that decisions raise: a request that cannot be done."""


class Refused(Exception):
    """A request that cannot be done, in Docker's words. `status` is the HTTP status that Docker gives it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
