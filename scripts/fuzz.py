"""Feeds bytes that atheris thinks up, guided by coverage, to whatever reads what others wrote: `make fuzz`.

    python scripts/fuzz.py [--seconds 60] [NAME…]

Each reader may refuse, in its own way; anything else that it raises is a finding. The bytes that raised it are left
in build/fuzz, and become a plain test. Without atheris (Linux, x86-64) nothing can be done here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["afterswarm"]):
    from afterswarm.agent.names import answers
    from afterswarm.api import decode, filters
    from afterswarm.core import constraint, template
    from afterswarm.core.dns.lookup import Asker, Book
    from afterswarm.core.template.values import Fields
    from afterswarm.core.trust import token
    from afterswarm.http.message import Request
    from afterswarm.model.network import NetworkSpec
    from afterswarm.model.refused import Refused
    from afterswarm.model.secret import SecretSpec
    from afterswarm.model.service import ServiceSpec

OUT = Path(__file__).parents[1] / "build" / "fuzz"
TASK = Fields("context", Task=Fields("task", ID="t", Slot=1), Node=Fields("node", Hostname="one", Labels={"a": "b"}))
ASKER, BOOK = Asker(("n",)), Book()
PORTS = {"_x._tcp.web": [[80, "web", ["10.0.1.2"]]]}
BOOK.take({"n": {"name": "n", "names": {"web": ["10.0.1.2", "fd00::2"]}, "ports": PORTS}}, None, None)

Reader = Callable[[bytes], object]
LOOP = asyncio.new_event_loop()


def bodies(data: bytes) -> None:
    """The JSON of clients."""
    for cls in (ServiceSpec, NetworkSpec, SecretSpec):
        LOOP.run_until_complete(decode.body(Request("POST", "/x", [], data), cls))


def queries(data: bytes) -> None:
    """Filters and versions."""
    text = data.decode("latin-1")
    filters.read(Request("GET", f"/x?filters={text}"))
    decode.version(Request("GET", f"/x?version={text}"), "node")


def tokens(data: bytes) -> None:
    """Join tokens."""
    token.parse(data.decode("latin-1"))


def constraints(data: bytes) -> None:
    """Constraints of placement."""
    constraint.parse(data.decode(errors="replace"))


def templates(data: bytes) -> None:
    """Templates of services and configs."""
    template.expand(data.decode(errors="replace"), TASK, {})


def names(data: bytes) -> None:
    """Questions for names."""
    record = answers.read(data)
    if record is not None:
        answers.known(BOOK, ASKER, record, 1, stream=False)
        answers.failure(record, 2)


READERS: dict[str, Reader] = {f.__name__: f for f in (bodies, queries, tokens, constraints, templates, names)}
SEEDS: dict[str, list[str]] = {
    "bodies": ['{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"a","Mounts":[{"Type":"bind"}]}}}'],
    "queries": ['{"label":["a=b"],"id":{"x":true}}', "12"],
    "tokens": ["SWMTKN-1-" + "0" * 50 + "-" + "0" * 25],
    "names": [
        "\0\1\1\0\0\1\0\0\0\0\0\0\3web\0\0\1\0\1",
        "\0\1\1\0\0\1\0\0\0\0\0\1\2_x\4_tcp\3web\0\0!\0\1\0\0)\4\0\0\0\0\0\0\0",
    ],
    "constraints": ["node.labels.a==b", "node.ip != 10.0.0.0/8"],
    "templates": ['{{if eq .Task.Slot 1}}{{printf "%05d" .Task.Slot}}{{else}}{{.Node.Hostname}}{{end}}'],
}


def one(reader: Reader) -> Callable[[bytes], None]:
    def test(data: bytes) -> None:
        with contextlib.suppress(Refused, template.Fault):
            reader(data)

    return test


def main() -> int:
    """Each reader in a process of its own, which atheris wants."""
    parser = argparse.ArgumentParser(description="Fuzz whatever reads what others wrote.")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(READERS)}; all of them without")
    given = parser.parse_args()
    if given.only:
        corpus = OUT / given.only
        corpus.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(SEEDS[given.only]):
            (corpus / f"seed{i}").write_text(seed)
        words = [f"-max_total_time={given.seconds}", "-max_len=2000", f"-artifact_prefix={OUT}/{given.only}-"]
        atheris.Setup([sys.argv[0], str(corpus), *words], one(READERS[given.only]))
        atheris.Fuzz()
    found = 0
    for name in given.names or READERS:
        argv = [sys.executable, __file__, "--seconds", str(given.seconds), "--only", name]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found += done.returncode != 0
        sys.stdout.write(f"{name}: {'well' if done.returncode == 0 else done.stdout + done.stderr[-3000:]}\n")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
