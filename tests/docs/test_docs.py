"""What the documentation names is there: links, paths, modules, commands, targets, ports, kinds of objects."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from afterswarm.adapters.etcd import server as etcd_server
from afterswarm.agent.beats import beats
from afterswarm.cli.main import main
from afterswarm.core.dataplane import vxlan
from afterswarm.model import enrolment
from afterswarm.model.snapshot import KINDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "afterswarm"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")], key=lambda p: p.as_posix()
)
TOPS = ("src/", "docs/", "tests/", "examples/", "bench/")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without its code blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def broken_links(page: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path
        there = found.exists() and (not anchor or anchor in anchors(found.read_text() if path else text))
        if not there:
            yield target


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def missing_paths(text: str) -> Iterator[str]:
    """Paths from the top of the checkout, and modules as the architecture names them (`core/cluster/guards.py`)."""
    packages = tuple(f"{p.name}/" for p in PACKAGE.iterdir() if (p / "__init__.py").exists())
    for span in spans(text):
        path = re.split(r"[\s:*…<]", span)[0]
        if path.startswith(TOPS) and not (ROOT / path).exists():
            yield span
        if path.startswith(packages) and path.endswith((".py", "/")) and not (PACKAGE / path).exists():
            yield span


def commands(text: str) -> Iterator[list[str]]:
    """The command lines in code blocks and backticks, as words."""
    lines = [line for kind, block in FENCE.findall(text) if kind in {"", "sh"} for line in block.splitlines()]
    for line in [*lines, *spans(text)]:
        for part in re.split(r"&&|;|\|", line.partition(" #")[0]):
            words = part.removeprefix("sudo ").split()
            if words:
                yield words


def unknown_commands(text: str) -> Iterator[str]:
    """`afterswarm …` that the argument parser does not take."""
    for words in commands(text):
        if words[0] != "afterswarm" or len(words) == 1 or not re.fullmatch(r"[a-z]+", words[1]):
            continue
        named = [w for w in words[1:3] if re.fullmatch(r"[a-z]+", w)]
        options = [w for w in words if w.startswith("--") and w != "--"]
        code, said = helped(named)
        if code or any(option not in said for option in options):
            yield " ".join(words)


def helped(named: list[str]) -> tuple[object, str]:
    """Exit code and text of the command's `--help`."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main([*named, "--help"])
    return ended.value.code, said.getvalue()


def missing_targets(text: str) -> Iterator[str]:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(text):
        if words[0] == "make" and len(words) > 1 and words[1] not in targets:
            yield words[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    assert not list(broken_links(page, text))
    assert not list(missing_paths(text))
    assert not list(unknown_commands(text))
    assert not list(missing_targets(text))


def test_a_page_that_names_what_is_not_there_is_found_out() -> None:
    page = ROOT / "README.md"
    text = (
        "# A heading, with `code`\n[good](#a-heading-with-code) [bad](#nowhere) [gone](docs/gone.md) [out](https://x.y)\n"
        "`src/afterswarm/ids.py` `src/gone.py` `core/naming.py` `core/gone.py` `core/dataplane/` `/run/core/x.py`\n"
        "`make test` `make nothing` `afterswarm doctor --peer X` `afterswarm doctor --pear X` `afterswarm dance`\n"
        "```sh\nmake also-nothing   # make this\ntrue && afterswarm lab fly   # x\nafterswarm lab up --hosts 3\n```\n"
    )
    assert list(broken_links(page, text)) == ["#nowhere", "docs/gone.md"]
    assert list(missing_paths(text)) == ["src/gone.py", "core/gone.py"]
    assert set(missing_targets(text)) == {"nothing", "also-nothing"}
    assert list(unknown_commands(text)) == ["afterswarm lab fly", "afterswarm doctor --pear X", "afterswarm dance"]


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    [tree] = [block for _, block in FENCE.findall(text) if block.startswith("src/afterswarm/")]
    there = {p.name for p in PACKAGE.rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", tree)) <= there
    packages = {p.parent.name for p in PACKAGE.rglob("__init__.py")} - {PACKAGE.name}
    assert set(re.findall(r"\b(\w+)/", tree)) >= packages


def test_the_layers_in_the_architecture_are_those_that_are_checked() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    [block] = [block for _, block in FENCE.findall(text) if block.startswith("daemon | sim")]
    shown = [" | ".join(re.findall(r"\w+", re.split(r"  +", line)[0])) for line in block.splitlines()]
    contract = (ROOT / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    checked = [" | ".join(re.findall(r"afterswarm\.(\w+)", line)) for line in contract.strip().splitlines()]
    assert shown == checked


def test_the_ports_that_have_to_be_open_are_those_of_the_code() -> None:
    ports = {
        f"{enrolment.PORT}/tcp",
        f"{etcd_server.PEER_PORT}/tcp",
        f"{vxlan.PORT}/udp",
        f"{beats.PORT}/udp",
    }
    for name in ("README.md", "docs/operations.md", "docs/security.md"):
        text = (ROOT / name).read_text()
        assert all(port in text for port in ports), name


def test_every_kind_of_object_is_in_the_glossary() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    words = {re.sub(r" \(.*\)", "", word).strip() for row in rows for word in row.split(",")}
    assert {kind.replace("-", " ") for kind in KINDS} <= words
