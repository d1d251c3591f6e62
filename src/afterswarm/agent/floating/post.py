"""The letters about floating addresses, between this daemon's parts and those of other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from afterswarm.model.floating import Ask, Call, Choice, Letters, Vote

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Letters).decode


class Post:
    """`send` is a datagram to another node. `host` and `manager` take what is for this one's two parts."""

    def __init__(
        self,
        node_id: str,
        send: Callable[[str, bytes], None],
        *,
        host: Callable[[str, Vote | Call], None],
        manager: Callable[[str, Ask | Choice], None],
    ) -> None:
        self._node_id = node_id
        self._send = send
        self._host = host
        self._manager = manager

    def tell(self, node_id: str, letter: Letters) -> None:
        """To this node as well; it gets it later, as others do."""
        if node_id == self._node_id:
            asyncio.get_running_loop().call_soon(self._deliver, node_id, letter)
        else:
            self._send(node_id, _encode(letter))

    def heard(self, sender: str, data: bytes) -> None:
        """What came from another node. Of a version to come: not for us."""
        try:
            letter: Letters = _decode(data)
        except msgspec.DecodeError:
            return
        self._deliver(sender, letter)

    def _deliver(self, sender: str, letter: Letters) -> None:
        if isinstance(letter, Vote | Call):
            self._host(sender, letter)
        else:
            self._manager(sender, letter)
