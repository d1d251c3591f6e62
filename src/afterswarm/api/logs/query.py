"""What a client wants of logs, read from its request and said to an engine."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from afterswarm.http.message import Request
from afterswarm.model.refused import Refused
from afterswarm.ports import Json


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asked for, in the engine's own words."""

    stdout: bool
    stderr: bool
    follow: bool
    timestamps: bool
    details: bool
    tail: str
    since: str
    until: str

    @staticmethod
    def of(request: Request) -> Query:
        query = Query(
            stdout=request.flag("stdout"),
            stderr=request.flag("stderr"),
            follow=request.flag("follow"),
            timestamps=request.flag("timestamps"),
            details=request.flag("details"),
            tail=request.arg("tail") or "all",
            since=request.arg("since"),
            until=request.arg("until"),
        )
        if not (query.stdout or query.stderr):
            raise Refused(400, "Bad parameters: you must choose at least one stream")
        return query

    def target(self, container: str, *, whole: bool) -> str:
        """`whole`: the container began while the client was listening, so `tail` and `since` are not about it."""
        words: Json = {
            name: int(getattr(self, name)) for name in ("stdout", "stderr", "follow", "timestamps", "details")
        }
        words["tail"] = "all" if whole else self.tail
        for name in ("since", "until"):
            if getattr(self, name) and not whole:
                words[name] = getattr(self, name)
        return f"/containers/{container}/logs?{urlencode(words)}"
