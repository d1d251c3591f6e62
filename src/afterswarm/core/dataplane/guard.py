"""What keeps a host silent about a floating address unless its daemon has lately said that it may answer, as nft text.

A daemon that stands still cannot take an address away; its kernel can stop answering by itself. Two sets hold the
addresses that are open, each for a short time. They are refreshed by a packet, not by a transaction: one that the
daemon sends to the address itself, over the loopback device and with a mark that takes privileges. So nothing is
written ten times a second, and who watches nftables' generation is not disturbed.

    netdev, ingress of the interface   who asks for a closed address by ARP or NDP is not heard
    inet, prerouting                   what comes for a closed address is dropped; the refreshing packet ends here
    inet, postrouting                  nothing leaves with it (nor is anybody asked by ARP in its name)

What this host only passes on, to whom the address is at, is let through: it is not local then.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from afterswarm.core.floating import OPEN

NAME = "afterswarm_address"
FAMILIES = ("netdev", "inet")
NOTHING = "".join(f"table {family} {NAME}\ndelete table {family} {NAME}\n" for family in FAMILIES)
MARK = 0x0AF10A00
PORT = 9  # of the refreshing datagram, which nobody gets


def ruleset(guarded: Iterable[tuple[str, str]]) -> str:
    """Both tables, for these addresses on these interfaces. What was open is closed until the next refresh."""
    places = sorted(guarded)
    if not places:
        return NOTHING
    four, six = _of(places, 4), _of(places, 6)
    return f"{NOTHING}table netdev {NAME} {{\n{_netdev(places)}}}\ntable inet {NAME} {{\n{_inet(four, six)}}}\n"


def _netdev(places: list[tuple[str, str]]) -> str:
    refresh = [
        f"meta mark {MARK:#x} ip daddr != 0.0.0.0 update @open4 {{ ip daddr }}",
        f"meta mark {MARK:#x} ip6 daddr != :: update @asked6 {{ @nh,192,128 }}",
    ]
    text = _set("open4", "type ipv4_addr") + _set("asked6", "typeof @th,64,128")
    text += _chain("refresh", 'type filter hook ingress device "lo" priority -500; policy accept', refresh)
    for number, device in enumerate(sorted({device for _, device in places})):
        there = [place for place in places if place[1] == device]
        four, six = _of(there, 4), _of(there, 6)
        rules = [f"arp daddr ip {{ {', '.join(four)} }} arp daddr ip != @open4 drop"] if four else []
        rules += [
            f"icmpv6 type nd-neighbor-solicit @th,64,128 {int(ip_address(address)):#x} @th,64,128 != @asked6 drop"
            for address in six
        ]
        text += _chain(f"in{number}", f'type filter hook ingress device "{device}" priority -500; policy accept', rules)
    return text


def _inet(four: list[str], six: list[str]) -> str:
    coming, leaving = [], ['oifname "lo" accept']
    for family, kind, addresses in (("ip", "4", four), ("ip6", "6", six)):
        if addresses:
            ring = f"{{ {', '.join(addresses)} }}"
            to = f"{family} daddr {ring}"
            coming.append(f'iifname "lo" meta mark {MARK:#x} {to} update @open{kind} {{ {family} daddr }} drop')
            coming.append(f'iifname != "lo" {to} {family} daddr != @open{kind} fib daddr type local drop')
            leaving.append(f"{family} saddr {ring} {family} saddr != @open{kind} fib saddr type local drop")
    return (
        _set("open4", "type ipv4_addr")
        + _set("open6", "type ipv6_addr")
        + _chain("coming", "type filter hook prerouting priority -310; policy accept", coming)
        + _chain("leaving", "type filter hook postrouting priority 300; policy accept", leaving)
    )


def _of(places: Iterable[tuple[str, str]], version: int) -> list[str]:
    return sorted({address for address, _ in places if ip_address(address).version == version})


def _set(name: str, kind: str) -> str:
    return f"\tset {name} {{ {kind}; flags dynamic,timeout; timeout {OPEN * 1000:.0f}ms; size 1024; }}\n"


def _chain(name: str, head: str, rules: Iterable[str]) -> str:
    return f"\tchain {name} {{\n\t\t{head}\n" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n"
