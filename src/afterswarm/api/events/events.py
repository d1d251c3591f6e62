"""`/events`: the engine's stream and, on a manager, the swarm's own events in between."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from math import inf

import msgspec

from afterswarm.api import filters
from afterswarm.api.events import happenings
from afterswarm.api.host import Host
from afterswarm.http.children import children
from afterswarm.http.message import Body, Request, Response, Upgraded, let_go
from afterswarm.http.proxy import forward
from afterswarm.ports import Clock, Json, Replica

REMEMBERED = 256  # events kept for `since`, as many as Docker keeps
WAITING = 1024  # events that a slow client may be behind before it misses some
QUIET = 0.2  # seconds of silence after which an engine has told its past

Line = bytes | None  # `None`: the engine's stream has ended


class Events:
    """Recent events of the swarm, and who listens. `follow` must run for there to be any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: deque[Json] = deque(maxlen=REMEMBERED)
        self._listeners: set[asyncio.Queue[Json]] = set()

    async def follow(self, replica: Replica) -> None:
        """Turn changes into events until cancelled. What exists already is no news."""
        first = True
        async for batch in replica.changes():
            if first:
                first = False
                continue
            for change in batch:
                for event in happenings.of(change, replica.snapshot()):
                    self._publish(event)

    async def stream(self, host: Host, request: Request) -> Response | Upgraded:
        """`GET /events`. It misses nothing that happens while the engine is being asked."""
        wanted = filters.read(request)
        news: asyncio.Queue[Json] = asyncio.Queue(maxsize=WAITING)
        past = list(self._recent) if request.arg("since") or request.arg("until") else []
        self._listeners.add(news)
        engines: bytes | AsyncIterable[bytes] = b""

        async def leave() -> None:
            self._listeners.discard(news)
            await let_go(engines)

        try:
            answer = await forward(_plain(request), host.engine)
        except BaseException:
            await leave()
            raise
        if isinstance(answer, Upgraded) or answer.status != 200 or isinstance(answer.body, bytes):
            await leave()
            return answer
        engines = answer.body
        within = _moment(request, "since", -inf), _moment(request, "until", inf)
        answer.body = Body(_merged(engines, past, news, lambda e: _between(e, within) and matches(e, wanted)), leave)
        return answer

    def _publish(self, event: Json) -> None:
        self._recent.append(event)
        for queue in self._listeners:
            if not queue.full():
                queue.put_nowait(event)


def _plain(request: Request) -> Request:
    """Without a wish for another format than one JSON object a line, which newer engines would grant."""
    return Request(request.method, request.target, [h for h in request.headers.items() if h[0].lower() != "accept"])


async def _merged(
    engines: AsyncIterable[bytes], past: list[Json], news: asyncio.Queue[Json], chosen: Callable[[Json], bool]
) -> AsyncGenerator[bytes, None]:
    """What was, in order of time, then what comes, as it comes."""
    lines: asyncio.Queue[Line] = asyncio.Queue(maxsize=1)
    ours = deque(event for event in past if chosen(event))
    async with children() as spawn:
        spawn(_engine_lines(engines, lines))
        ended = False
        while ours and not ended:
            try:
                async with asyncio.timeout(QUIET):
                    line = await lines.get()
            except TimeoutError:
                break
            ended = line is None
            while ours and (line is None or ours[0]["timeNano"] <= _when(line)):
                yield _line(ours.popleft())
            if line is not None:
                yield line
        for event in ours:
            yield _line(event)
        if ended:
            return
        spawn(_news_lines(news, lines, chosen))
        while (line := await lines.get()) is not None:
            yield line


async def _engine_lines(engine: AsyncIterable[bytes], lines: asyncio.Queue[Line]) -> None:
    """Whole lines only: ours must not end up inside one."""
    rest = b""
    try:
        async for chunk in engine:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                await lines.put(line + b"\n")
    except OSError:
        pass  # the engine is gone, and the stream ends with it
    if rest:
        await lines.put(rest)
    await lines.put(None)


class _Moment(msgspec.Struct):
    timeNano: int = 0  # noqa: N815 - the engine's word


def _when(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_Moment).timeNano
    except msgspec.DecodeError:
        return 0


async def _news_lines(news: asyncio.Queue[Json], lines: asyncio.Queue[Line], chosen: Callable[[Json], bool]) -> None:
    while True:
        event = await news.get()
        if chosen(event):
            await lines.put(_line(event))


def matches(event: Json, wanted: filters.Filters) -> bool:
    """Docker's rules: several filters must all match; names and ids from their beginning."""
    attributes: dict[str, str] = event["Actor"]["Attributes"]
    actor: str = event["Actor"]["ID"]
    for key, values in wanted.items():
        match key:
            case "type":
                found = event["Type"] in values
            case "scope":
                found = event["scope"] in values
            case "event":
                found = event["Action"] in values
            case "label":
                found = filters.labelled(wanted, "label", attributes)
            case "image":
                found = False
            case _:
                found = any(actor.startswith(v) or attributes["name"].startswith(v) for v in values)
        if not found:
            return False
    return True


def _between(event: Json, within: tuple[float, float]) -> bool:
    since, until = within
    return bool(since <= event["timeNano"] / 1e9 <= until)


def _moment(request: Request, name: str, default: float) -> float:
    """Seconds since the epoch, with a fraction; the engine has complained about anything else."""
    try:
        return float(request.arg(name))
    except ValueError:
        return default


def _line(event: Json) -> bytes:
    return msgspec.json.encode(event) + b"\n"
