"""The front door: versions, what is forwarded, what errors become."""

from __future__ import annotations

from typing import Any

import pytest

from afterswarm.api.host import LocalInfo
from afterswarm.http.client import Client
from afterswarm.http.message import Request, Response
from afterswarm.http.server import serve_unix
from afterswarm.ports import Conflict, Fenced, Unavailable

LABEL = "io.afterswarm.network"


async def test_what_is_not_the_swarms_goes_to_the_engine_as_it_came(api: Any, engine: Any) -> None:
    assert (await api("GET", "/v1.41/containers/json?all=1"))[0] == 404  # the words of the fake
    assert engine.asked[-1] == ("GET", "/v1.41/containers/json?all=1")


async def test_unknown_calls_about_the_swarm_do_not_reach_the_engine(api: Any, engine: Any) -> None:
    for method, path in (("GET", "/swarm/x"), ("PUT", "/services"), ("POST", "/nodes/a/b/c"), ("DELETE", "/tasks/x")):
        assert await api.fails(method, "/v1.41" + path) == (404, "page not found")
    assert all(target == "/_ping" for _, target in engine.asked)


async def test_an_odd_target_is_not_our_problem(api: Any) -> None:
    assert (await api("OPTIONS", "*"))[0] == 404


async def test_the_engines_version_is_offered(api: Any) -> None:
    too_new = "client version 1.42 is too new. Maximum supported API version is 1.41"
    assert await api.fails("GET", "/v1.42/nodes") == (400, too_new)
    assert (await api("GET", "/v1.41/nodes"))[0] == 200
    assert (await api("GET", "/v1.24/nodes"))[0] == 200
    assert (await api("GET", "/nodes"))[0] == 200


async def test_a_version_of_absurd_length_is_no_version(api: Any) -> None:
    assert (await api("GET", f"/v1.{'9' * 5000}/nodes"))[0] == 404


@pytest.mark.parametrize("path", ["services", "secrets", "configs", "networks"])
async def test_a_body_that_is_too_deep_is_refused(api: Any, path: str) -> None:
    body = b'{"Driver":"overlay","a":' + b'{"a":' * 100_000 + b"}" * 100_001
    assert (await api("POST", f"/{path}/create", body))[0] == 400


async def test_names_are_decoded(api: Any) -> None:
    assert await api.fails("GET", "/services/a%20b") == (404, "service a b not found")


async def test_ping(api: Any, host: Any) -> None:
    for local, word in (
        (LocalInfo(state="active", control_available=True), "active/manager"),
        (LocalInfo(state="active"), "active/worker"),
        (LocalInfo(state="inactive"), "inactive"),
        (LocalInfo(state="pending"), "pending"),
        (LocalInfo(state="locked"), "locked"),
        (LocalInfo(state="error", error="x"), "error"),
    ):
        host.state = local
        for method in ("GET", "HEAD"):
            answer = await api.app(Request(method, "/_ping"))
            assert [value for name, value in answer.headers if name == "Swarm"] == [word]
            assert [value for name, value in answer.headers if name.lower() == "api-version"] == ["1.41"]
            await answer.body.aclose()


async def test_a_newer_engine_is_offered_as_one_that_we_know(host: Any, api: Any, tmp_path: Any) -> None:
    async def newer(request: Request) -> Response:
        if request.path == "/_ping":
            return Response(200, [("Api-Version", "1.60"), ("Swarm", "inactive")], b"OK")
        components = [
            {"Name": "Engine", "Version": "30.0", "Details": {"ApiVersion": "1.60"}},
            {"Name": "containerd", "Version": "2"},
        ]
        return Response.json({"Version": "30.0", "ApiVersion": "1.60", "Components": components})

    async with serve_unix(tmp_path / "newer.sock", newer):
        host.engine = Client.unix(tmp_path / "newer.sock")
        version = await api.ok("GET", "/version")
        assert version["ApiVersion"] == version["Components"][0]["Details"]["ApiVersion"] == "1.56"
        assert (version["Version"], version["Components"][1]["Version"]) == ("30.0", "2")
        answer = await api.app(Request("GET", "/_ping"))
        assert dict(answer.headers)["Api-Version"] == "1.56"
        await answer.body.aclose()
        assert (await api("GET", "/v1.57/nodes"))[0] == 400
        assert (await api("GET", "/v1.56/nodes"))[0] == 200
        host.engine.close()


async def test_without_an_engine_swarm_calls_are_answered_and_others_say_why(
    host: Any, api: Any, tmp_path: Any
) -> None:
    host.engine = Client.unix(tmp_path / "none.sock")
    assert (await api("GET", "/v1.41/nodes"))[0] == 200
    ping = await api.app(Request("GET", "/_ping"))
    assert dict(ping.headers)["Swarm"] == "active/manager"
    for target in ("/v1.41/containers/json", "/version", "/info", "/events"):
        status, message = await api.fails("GET", target)
        assert status == 503
        assert message == f"Cannot connect to the Docker engine at unix://{tmp_path}/none.sock: is it running?"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Conflict(7), 500, "update out of sequence"),
        (Unavailable(), 503, "The swarm does not have a leader"),
        (Fenced(), 503, "The swarm does not have a leader"),
    ],
)
async def test_errors_of_the_store(host: Any, api: Any, error: Exception, status: int, words: str) -> None:
    class Broken:
        def snapshot(self) -> Any:
            raise error

    host.replica = Broken()
    got, message = await api.fails("GET", "/nodes")
    assert got == status
    assert words in message


async def test_a_bug_is_not_hidden(host: Any, api: Any) -> None:
    class Broken:
        def snapshot(self) -> Any:
            raise ZeroDivisionError

    host.replica = Broken()
    with pytest.raises(ZeroDivisionError):
        await api("GET", "/nodes")


async def test_other_containers_are_the_engines(api: Any, engine: Any) -> None:
    engine.add("mine")
    for body in ({"Image": "x"}, {"HostConfig": {"NetworkMode": "mine"}}, b"not json", [1]):
        await api("POST", "/v1.41/containers/create", body)
        assert engine.asked[-1] == ("POST", "/v1.41/containers/create")
