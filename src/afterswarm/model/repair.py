"""What a host found changed in its kernel by somebody else, and has put right."""

from __future__ import annotations

from typing import NamedTuple

LINKS, FDB, RULES, FIREWALL, ROUTES, SETTINGS, NETWORKS, DNS, ENCRYPTION = KINDS = (
    "links",  # VXLAN devices and bridges: there, on each other, up, with their MTU and addresses
    "fdb",  # where the tunnels and bridges find an address
    "rules",  # our nftables tables, on the host and in containers' namespaces
    "firewall",  # the way through Docker's own filter
    "routes",  # ways back to other hosts: routing rules and tables
    "settings",  # the kernel's own, below /proc/sys
    "networks",  # those of the engine
    "dns",  # where names are answered
    "encryption",  # the WireGuard device, its process and its peers
)


class Difference(NamedTuple):
    """`what` was not as it should be, in words."""

    kind: str
    what: str
