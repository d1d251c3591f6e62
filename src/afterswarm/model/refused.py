"""The one error that decisions raise: a request that cannot be done."""


class Refused(Exception):
    """A request that cannot be done, in Docker's words. `status` is the HTTP status that Docker gives it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are "
    "online. Make sure more than half of the managers are online."
)
