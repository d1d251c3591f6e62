"""Why no manager takes a node that was away for too long: said to its user, and nothing follows from it.

A manager that does not accept a certificate hangs up without a word. But its root certificate is for everybody to see.
"""

from __future__ import annotations

from afterswarm.agent.trust import enrol
from afterswarm.agent.trust.identity import Credentials
from afterswarm.http.errors import ConnectFailed
from afterswarm.model.enrolment import split
from afterswarm.model.refused import Refused
from afterswarm.ports import Clock

AGAIN = 'Use "docker swarm leave --force", and join again.'
EXPIRED = "this node's certificate has expired while no manager could be reached. " + AGAIN
REPLACED = "the swarm's root certificate was replaced after this node had been removed from the swarm. " + AGAIN


class Diagnosis:
    """`look` when no manager answered as one should."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock

    async def look(self) -> str:
        """What is wrong for good; "" when waiting may help."""
        identity, trust = self._credentials.identity, self._credentials.trust
        if identity is None or not trust:
            return ""
        if 0 < identity.expires < self._clock.now():
            return EXPIRED
        found = ""
        for address in identity.managers:
            try:
                await enrol.root(*split(address), trust)
            except ConnectFailed:
                continue
            except Refused as refused:
                found = REPLACED if refused.status == enrol.ANOTHER_ROOT else found
            else:
                return ""
        return found
