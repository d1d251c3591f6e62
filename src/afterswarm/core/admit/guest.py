"""Which single containers may come into an overlay network, and with which address. Docker's words.

The address is given here and not by the leader's allocator: the host that asks waits for it, and the network's guard
refuses a commit when somebody else gave an address meanwhile (see `core.cluster.guards`).
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core import families
from afterswarm.core.allocate.addresses import Pool, in_use
from afterswarm.model.base import Change
from afterswarm.model.guest import Guest, Said, Wish
from afterswarm.model.network import Network
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment


def network(snap: Snapshot, term: str) -> Network:
    """The network that is meant: by id, name, or the beginning of an id."""
    known = [n for _, n in sorted(snap.networks.items()) if not n.pending_delete]
    exact = [n for n in known if n.id == term] or [n for n in known if n.name == term]
    found = exact or [n for n in known if term and n.id.startswith(term)]
    if not found:
        raise Refused(404, f"network {term} not found")
    if len(found) > 1:
        raise Refused(400, f"network {term} is ambiguous ({len(found)} matches found)")
    return found[0]


def admit(snap: Snapshot, node_id: str, wish: Wish) -> tuple[Network, Guest | None]:
    """A new guest of this node; `None` until the network has been allocated."""
    into = network(snap, wish.network)
    called = wish.named or wish.network
    could_not = f"Could not attach to network {called}: rpc error: code = "
    if not into.spec.attachable:
        raise Refused(403, f"{could_not}PermissionDenied desc = network {called} not manually attachable")
    if into.node_local:  # its address is its host's business, and nothing is to be remembered
        return into, Guest(id="", node_id=node_id, attachment=Attachment(network_id=into.id))
    if not into.subnet or not into.vni or node_id not in into.gateways:
        return into, None
    pool = Pool(into, in_use(snap)[into.id])
    if wanted := _wanted(into, wish):
        address = pool.take_this(wanted)
        if not address:
            taken = wish.address or wish.address6
            raise Refused(403, f"{could_not}ResourceExhausted desc = Address already in use: {taken}")
    else:
        address = pool.take()
    if not address:
        raise Refused(
            503, f"{could_not}ResourceExhausted desc = no address left in network {into.name} ({into.subnet})"
        )
    guest = Guest(
        id=ids.derive("guest", node_id, into.id, address, snap.rev),
        node_id=node_id,
        attachment=Attachment(network_id=into.id, address=address),
        name_servers=wish.name_servers,
    )
    return into, guest


def reported(snap: Snapshot, node_id: str, said: Said) -> list[Change]:
    """What a node says of its own guests; of others it may say nothing."""
    changes: list[Change] = []
    for new in said.changed:
        known = snap.guests.get(new.id)
        if known is None or known.node_id != node_id:
            continue
        attachment = replace(known.attachment, aliases=new.attachment.aliases)
        told = replace(
            known,
            attachment=attachment,
            container_id=new.container_id,
            name=new.name,
            running=new.running,
            name_servers=new.name_servers,
        )
        if told != known:
            changes.append(Change(known, told))
    for key in said.gone:
        known = snap.guests.get(key)
        if known is not None and known.node_id == node_id:
            changes.append(Change(known, None))
    return changes


def guests_of(snap: Snapshot, network_id: str) -> list[Guest]:
    """The guests in a network, by id."""
    return [guest for _, guest in sorted(snap.guests.items()) if guest.attachment.network_id == network_id]


def _wanted(into: Network, wish: Wish) -> str:
    """The IPv4 address that the user asked for, in either family; "" when any will do."""
    address = _address(wish.address) if wish.address else ""
    if not wish.address6:
        return address
    try:
        second = str(IPv6Address(wish.address6))
    except AddressValueError:
        raise Refused(400, f"invalid IPv6 address: {wish.address6}") from None
    if not into.subnet6:
        raise Refused(400, f"network {into.name} has no IPv6")
    found = families.place(into, second)
    if not found:
        inside = into.range6 or into.subnet6
        raise Refused(400, f"{second} is none of the first {2 ** (32 - _bits(into))} addresses of {inside}")
    if address and found != address:
        raise Refused(
            400, f"{second} goes with {found} in network {into.name}, not with {address}: ask for one of them"
        )
    return found


def _bits(network: Network) -> int:
    return int(network.subnet.partition("/")[2])


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise Refused(400, f"invalid IPv4 address: {text}") from None
