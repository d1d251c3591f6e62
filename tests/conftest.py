"""What every test needs, and which rows of the compatibility table each one shows."""

from __future__ import annotations

import asyncio
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The plugin for virtual time asks for the current loop before tests without one, too, and asyncio would make one that
# nobody closes: say that there is none.
asyncio.set_event_loop(None)

# CI judges a change, so it draws the same examples each time; new ones are drawn wherever else the suite runs. How long
# an example takes is up to the machine, and proves nothing.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("anywhere"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")

ROOT = Path(__file__).parents[1]
SHOWN = ROOT / "build" / "compatibility.json"  # what runs have shown, merged: row -> test -> client and outcome
COMMAND_LINES = {"/usr/bin/docker": "docker 20.10", "/usr/local/bin/docker": "docker 28.2"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", type=Path, help="write which test shows which row to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the marks of every test; a row that nobody knows is a mistake of whoever wrote the test."""
    sections = tomllib.loads((ROOT / "tests/api/rows/rows.toml").read_text())
    known = {row for rows in sections.values() for row in rows}
    claims = {item.nodeid: found for item in items if (found := list(_claims(item)))}
    wrong = [
        f"{test}: {claim['row']}" for test, found in claims.items() for claim in found if claim["row"] not in known
    ]
    if wrong:
        raise pytest.UsageError("rows that tests/api/rows/rows.toml does not have:\n" + "\n".join(wrong))
    if config.option.rows:
        config.option.rows.write_text(json.dumps(claims))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    claims = dict(report.user_properties).get("rows")
    if claims and (report.when == "call" or report.outcome != "passed"):
        _OUTCOMES[report.nodeid] = report.outcome, claims


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not _OUTCOMES or session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return  # of several processes, the one that hears of all tests writes
    shown = json.loads(SHOWN.read_text()) if SHOWN.exists() else {}
    for test, (outcome, claims) in _OUTCOMES.items():
        for claim in claims:
            shown.setdefault(claim["row"], {})[test] = {"client": claim["client"], "outcome": outcome}
    SHOWN.parent.mkdir(exist_ok=True)
    SHOWN.write_text(json.dumps(shown, indent=1, sort_keys=True))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if claims := list(_claims(item)):
        item.user_properties.append(("rows", claims))


_OUTCOMES: dict[str, tuple[str, Any]] = {}


def _claims(item: pytest.Item) -> Iterator[dict[str, str]]:
    """Each row that the test shows, with which client, and how it differs ("": not at all)."""
    for mark in item.iter_markers("row"):
        for row in mark.args:
            client = mark.kwargs.get("client") or _client(item)
            yield {"row": row, "client": client, "differs": mark.kwargs.get("differs", "")}


def _client(item: pytest.Item) -> str:
    params = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    for param in params:
        if isinstance(param, str) and param in COMMAND_LINES:
            return COMMAND_LINES[param]
    return "docker on real hosts" if item.get_closest_marker("lab") else "the API"
