"""Which of this host's addresses the others shall use. `choose` decides; `of_this_host` looks."""

from __future__ import annotations

import ipaddress
import json
import subprocess

from afterswarm.model.enrolment import PORT
from afterswarm.model.refused import Refused

_NOT_ADVERTISED = ("lo", "docker", "br-", "asw", "asx", "veth", "virbr")


def of_this_host() -> dict[str, list[str]]:
    """Interface name -> its global addresses, IPv4 before IPv6."""
    shown = subprocess.run(["ip", "-json", "address", "show", "scope", "global"], capture_output=True, check=True)
    found: dict[str, list[str]] = {}
    for link in json.loads(shown.stdout or b"[]"):
        addresses = [a["local"] for a in link.get("addr_info", ()) if "local" in a]
        if addresses:
            found[link["ifname"]] = sorted(addresses, key=lambda a: ":" in a)
    return found


def listening(wish: str, own: dict[str, list[str]]) -> tuple[str, int]:
    """Address ("" for all) and port of `--listen-addr`. Raises `Refused` in Docker's words."""
    host, port = _without_port(wish), _port(wish, PORT)
    if host in {"", "0.0.0.0", "::"}:
        return "", port
    if host in own:
        return own[host][0], port
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        words = "listen address must be an IP address or network interface (with optional port number)"
        raise Refused(400, words) from None


def advertised(wish: str, listen_port: int) -> int:
    """The port that others shall use: of `--advertise-addr` or, if it names none, the one that is listened at."""
    return _port(wish, listen_port)


def choose(wish: str, own: dict[str, list[str]], *, flag: str = "--advertise-addr") -> str:
    """The address for `wish`: "" (the only one), an address, an interface, each with or without a port.

    Raises `Refused` in Docker's words.
    """
    text = _without_port(wish)
    if not text or text in {"0.0.0.0", "::"}:
        return _only(own, flag)
    if text in own:
        return own[text][0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        what = "advertise" if flag == "--advertise-addr" else "data path"
        raise Refused(400, f"{what} address must be a non-zero IP address or network interface ({wish})") from None


def _only(own: dict[str, list[str]], flag: str) -> str:
    candidates = {name: found for name, found in own.items() if not name.startswith(_NOT_ADVERTISED)}
    if len(candidates) == 1:
        [found] = candidates.values()
        if len({":" in a for a in found}) == len(found):  # at most one of each family
            return found[0]
    if not candidates:
        raise Refused(400, f"could not find the system's IP address - specify one with {flag}")
    shown = " and ".join(f"{found[0]} on {name}" for name, found in sorted(candidates.items())[:2])
    same = "on different interfaces" if len(candidates) > 1 else "on the same interface"
    if len(candidates) == 1:
        [(name, found)] = candidates.items()
        shown = " and ".join(found[:2]) + f" on {name}"
    raise Refused(
        400,
        f"could not choose an IP address to advertise since this system has multiple addresses {same} ({shown})"
        f" - specify one with {flag}",
    )


def _port(text: str, default: int) -> int:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        return default
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise Refused(400, f"invalid port in address {text!r}")
    return int(port)


def _without_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.strip("[]")
    return text.strip("[]")
