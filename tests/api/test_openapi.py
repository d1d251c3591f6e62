"""Whatever Docker's own description of the API lets clients send, and what it does not, is answered as it says.

The description lies beside the checkout; where it does not, these tests are skipped. Its calls about the swarm are
drawn by schemathesis, right and wrong ones, in a swarm that has one object of each kind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

from afterswarm.api.host import LocalInfo
from afterswarm.http.message import Request, let_go
from afterswarm.model.base import Change
from afterswarm.model.network import Network
from afterswarm.model.secret import Config, Secret
from afterswarm.model.service import Service
from afterswarm.model.task import Task, TaskState

DESCRIPTION = Path(__file__).parents[3] / "shared" / "data" / "docker-engine-api-v1.41.yaml"
OURS = {"swarm", "nodes", "services", "tasks", "secrets", "configs"}
INGRESS = "ingress000000000000000000"
EXAMPLES = 15  # of each kind for each call
SEQUENCE = "update out of sequence"  # clients look for these words, which come with status 500

# What the real engine answers as well, and its description leaves out.
UNDOCUMENTED = {
    400,  # to what it cannot read, to filters that it does not know, and to ambiguous names
    404,  # to what is not there
    409,  # to a name that is taken
    501,  # to what it does not do
    503,  # without a majority
}


def operations() -> Iterator[Any]:
    if not DESCRIPTION.exists():
        return
    raw = yaml.safe_load(DESCRIPTION.read_text())
    raw["paths"] = {p: i for p, i in raw["paths"].items() if p.split("/")[1] in OURS or p == "/networks/create"}
    for found in schemathesis.openapi.from_dict(raw).get_all_operations():
        operation = found.ok()
        name = f"{operation.method} {operation.path}"
        yield pytest.param(operation, operation.as_strategy(), id=f"{name} right")
        if operation.body or operation.query:
            wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
            yield pytest.param(operation, wrong, id=f"{name} wrong")


MISSING = pytest.param(None, None, marks=pytest.mark.skip(reason=f"{DESCRIPTION} is not there"), id="none")


@pytest.mark.row("CL-05", client="schemathesis")
@pytest.mark.parametrize(("operation", "cases"), list(operations()) or [MISSING])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what is drawn is not made smaller: the swarm has changed meanwhile
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
async def test_cl_05_answers_are_as_described(
    api: Any, operation: Any, cases: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    """And a call that is refused has changed nothing."""
    api.host.state, api.host.replica = LocalInfo(state="active", control_available=True), api.host.cache
    await furnish(api)
    case = data.draw(cases)
    if data.draw(st.booleans(), label="about an object that is there"):
        await aim(api, case)
    request = requests.Request(**case.as_transport_kwargs(base_url="http://docker/v1.41")).prepare()
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    before = api.host.cache.rev
    answer = await api.app(Request(request.method, request.path_url, list(request.headers.items()), body))
    raw = answer.body if isinstance(answer.body, bytes) else await begun(answer.body)
    judge(operation, request, answer, raw)
    if answer.status >= 400:
        assert api.host.cache.rev == before


async def furnish(api: Any) -> None:
    """One object of each kind, and nothing else of what users make."""
    made = [o for o in api.stored((Service, Task, Secret, Config, Network)) if o.id != INGRESS]
    await api.host.cache.commit([Change(obj, None) for obj in made])
    for kind in ("secrets", "configs"):
        await api.ok("POST", f"/{kind}/create", {"Name": "a", "Data": "aHVzaA=="})
    template = {"ContainerSpec": {"Image": "nginx:1"}}
    service = await api.ok("POST", "/services/create", {"Name": "a", "TaskTemplate": template})
    await api.write(Task(id="t", service_id=service["ID"], slot=1, state=TaskState.PENDING))


async def aim(api: Any, case: Any) -> None:
    """Let the call be about something that is there, in the version that it has, with what it cannot do without."""
    kind = case.path.split("/")[1]
    if case.path in {"/swarm/init", "/swarm/join"}:
        api.host.become(LocalInfo())
        return
    found = await api.ok("GET", f"/{kind}") or {}
    if isinstance(found, list):
        found = found[-1]
    if "id" in case.path_parameters:
        case.path_parameters["id"] = found["ID"]
    if "version" in case.query:
        case.query["version"] = found["Version"]["Index"]
    if isinstance(case.body, dict):
        named(case.body, kind, found.get("Spec", {}).get("Name") if "id" in case.path_parameters else "b")


def named(body: dict[str, Any], kind: str, name: str | None) -> None:
    body["Name"] = name
    match kind:
        case "networks":
            body["Driver"] = "overlay"  # others are the engine's
        case "secrets" | "configs":
            body["Data"] = "aHVzaA=="
        case "nodes":
            body |= {"Role": "manager", "Availability": "active"}
        case "swarm":
            body |= {"Name": "default", "EncryptionConfig": {}}
        case "services":
            template = body.setdefault("TaskTemplate", {})
            if isinstance(template, dict):
                for other in ("PluginSpec", "NetworkAttachmentSpec", "Runtime", "Networks"):
                    template.pop(other, None)
                container = template.setdefault("ContainerSpec", {})
                if isinstance(container, dict):
                    container["Image"] = "nginx:1"


async def begun(body: Any) -> bytes:
    """The beginning of a stream that may have no end."""
    read = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            async for chunk in body:
                read += chunk
    await let_go(body)
    return read


def judge(operation: Any, request: requests.PreparedRequest, answer: Any, raw: bytes) -> None:
    if answer.status >= 400:
        words = json.loads(raw)["message"]
        assert words
        assert answer.status != 500 or SEQUENCE in words
    assert operation.responses.find_by_status_code(answer.status) or answer.status in UNDOCUMENTED, (answer.status, raw)
    if answer.status == 201 and operation.path in {"/secrets/create", "/configs/create"}:
        assert json.loads(raw)["ID"]  # the engine's spelling, which docker-py needs; the description has "Id"
        return
    headers = {name.lower(): [value] for name, value in answer.headers}
    response = Response(answer.status, headers, raw, request, 0.1, verify=True)
    operation.validate_response(response)
