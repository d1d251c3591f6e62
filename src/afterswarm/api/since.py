"""Which version of the API brought which member of a request: what an older client sends of it counts as not sent.

So does Docker: a program that was written for an older API gets what it got then. Answers hide nothing. The one table
of it; versions are those of Docker's API history.
"""

from __future__ import annotations

from typing import Any

from afterswarm.api import versions
from afterswarm.http.message import Request
from afterswarm.model.refused import Refused

Version = tuple[int, int]

CONTAINER = "TaskTemplate.ContainerSpec."
SERVICE: dict[Version, tuple[str, ...]] = {
    (1, 40): (
        CONTAINER + "Sysctls",
        CONTAINER + "Privileges.CredentialSpec.Config",
        CONTAINER + "Configs.Runtime",
        "TaskTemplate.Placement.MaxReplicas",
    ),
    (1, 41): (
        CONTAINER + "CapabilityAdd",
        CONTAINER + "CapabilityDrop",
        CONTAINER + "Ulimits",
        "TaskTemplate.Resources.Limits.Pids",
        "Mode.ReplicatedJob",
        "Mode.GlobalJob",
    ),
    (1, 44): (
        CONTAINER + "Privileges.Seccomp",
        CONTAINER + "Privileges.AppArmor",
        CONTAINER + "Privileges.NoNewPrivileges",
        CONTAINER + "Healthcheck.StartInterval",
    ),
    (1, 46): (CONTAINER + "OomScoreAdj", CONTAINER + "Mounts.TmpfsOptions.Options"),
    (1, 52): ("TaskTemplate.Resources.SwapBytes", "TaskTemplate.Resources.MemorySwappiness"),
}
SWARM: dict[Version, tuple[str, ...]] = {(1, 39): ("DefaultAddrPool", "SubnetSize"), (1, 40): ("DataPathPort",)}
STATUS = (1, 41)  # `?status=true` of the list of services
TEMPLATES = (1, 37)  # `Templating` of secrets and configs; this one is refused, not dropped


def before(request: Request, version: Version) -> bool:
    """Whether the client speaks an older version. One that names none speaks the newest."""
    asked, _ = versions.split(request.path)
    return asked is not None and asked < version


def known(body: dict[str, Any], request: Request, table: dict[Version, tuple[str, ...]]) -> dict[str, Any]:
    """The body without members that are newer than the version which the client speaks."""
    for version, paths in table.items():
        if before(request, version):
            for path in paths:
                _drop(body, path.split("."))
    return body


def check_templates(body: dict[str, Any], request: Request, word: str) -> None:
    asked, _ = versions.split(request.path)
    if asked and asked < TEMPLATES and body.get("Templating"):
        raise Refused(400, f"{word} templating is not supported on the specified API version: {versions.text(asked)}")


def _drop(value: Any, path: list[str]) -> None:
    """Also in every member of a list on the way."""
    if isinstance(value, list):
        for item in value:
            _drop(item, path)
    elif isinstance(value, dict):
        if len(path) == 1:
            value.pop(path[0], None)
        else:
            _drop(value.get(path[0]), path[1:])
