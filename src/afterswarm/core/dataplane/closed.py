"""Networks without a way out (`--internal`): their containers reach each other and our resolver, and nothing else.

The engine drops what is to be forwarded from such a bridge, too. These rules do not depend on it, and close what the
engine leaves open: the host's own addresses and ports.

A task that publishes a port is in the ingress network besides. Docker lets it out that way; here, if its other networks
are all internal, it answers connections from there and begins none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from afterswarm.core.dataplane import family as of
from afterswarm.core.dataplane.family import Family
from afterswarm.core.dataplane.ruleset import Piece, chain, collection
from afterswarm.core.dataplane.vxlan import bridge_name
from afterswarm.core.families import both
from afterswarm.model.network import Network
from afterswarm.model.task import Task

_FILTER = "type filter hook {} priority -6; policy accept"


def rules(networks: Sequence[Network], node_id: str, kinds: Sequence[Family], confined: Collection[str] = ()) -> Piece:
    """`confined`: addresses of tasks here that must not begin anything in the ingress network.

    Nothing where nothing is closed: every packet of every connection would pass it.
    """
    bridges = {bridge_name(n.id): n for n in networks if n.spec.internal and not n.spec.ingress}
    if not bridges and not confined:
        return [], {}
    elements = {
        "closed": dict.fromkeys((f'"{b}"' for b in bridges), ""),
        "within": dict.fromkeys((f'"{b}" . "{b}"' for b in bridges), ""),
    }
    shape = [collection("closed", "type ifname"), collection("within", "type ifname . ifname")]
    asked, alone = [], []
    for family in kinds:
        word, suffix = family.word, family.suffix
        resolvers = [f'"{b}" . {a}' for b, n in bridges.items() if (a := of.gateway(n, node_id, family))]
        shape.append(collection(f"resolvers{suffix}", f"type ifname . {family.kind}"))
        shape.append(collection(f"confined{suffix}", f"type {family.kind}"))
        elements[f"resolvers{suffix}"] = dict.fromkeys(resolvers, "")
        elements[f"confined{suffix}"] = dict.fromkeys((a for a in confined if (":" in a) == (word == "ip6")), "")
        asked.append(f"iifname . {word} daddr @resolvers{suffix} meta l4proto {{ tcp, udp }} th dport 53 accept")
        alone.append(f"{word} saddr @confined{suffix} ct state new drop")
    shape += [
        chain(
            "closed_in",
            _FILTER.format("input"),
            *alone,
            "iifname != @closed accept",
            "ct state established,related accept",  # this host began it
            *asked,
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",  # who has an address, and no more
            "drop",
        ),
        chain(
            "closed_through",
            _FILTER.format("forward"),
            "iifname . oifname @within accept",
            "iifname @closed drop",
            "oifname @closed drop",
            *alone,
        ),
    ]
    return shape, elements


def confined(tasks: Iterable[Task], networks: Iterable[Network]) -> frozenset[str]:
    """Addresses in the ingress network of tasks whose other networks are all internal."""
    known = {network.id: network for network in networks}
    found: set[str] = set()
    for task in tasks:
        here = [(known[a.network_id], a.address) for a in task.attachments if a.network_id in known]
        others = [network for network, _ in here if not network.spec.ingress]
        if others and len(here) == len(task.attachments) and all(network.spec.internal for network in others):
            entered = (both(network, address) for network, address in here if network.spec.ingress)
            found.update(address.partition("/")[0] for addresses in entered for address in addresses)
    return frozenset(found)
