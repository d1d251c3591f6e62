"""Makes docs/compatibility.md of tests/api/rows/rows.toml and of the marks of all tests, as `make compatibility` does.

    python scripts/compatibility.py [--check]

With `--check` nothing is written: the exit code says whether the page agrees with the tests. What tests have shown
when they ran last stands in build/compatibility.json; rows of which a test failed there are named.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
ROWS = ROOT / "tests" / "api" / "rows" / "rows.toml"
SHOWN = ROOT / "build" / "compatibility.json"

Claim = Mapping[str, str]

INTRODUCTION = """\
# Compatibility with Docker Swarm

What Docker Swarm does, and whether Afterswarm does the same. Every verdict stands on tests with real clients, which
name the row that they show; the page is made of them by `make compatibility`, and a test holds it to that.

- **works**: as Docker does it, in its words
- **differs**: accepted or refused clearly, and what is different
- **not shown yet**: no test says so

Clients are the published ones, unmodified: the docker command line in two versions, and others by name. "docker on
real hosts" is the command line on hosts with real engines and networks. "the API" is a plain HTTP call.
"""


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Make docs/compatibility.md from the marks of the tests.")
    parser.add_argument("--check", action="store_true", help="only say whether the page agrees with the tests")
    check = parser.parse_args().check
    claimed = claims()
    text = page(tomllib.loads(ROWS.read_text()), claimed)
    if check:
        if not PAGE.exists() or PAGE.read_text() != text:
            sys.stderr.write("docs/compatibility.md is not what the tests say: run `make compatibility`\n")
            return 1
        return 0
    PAGE.write_text(text)
    for row, tests in sorted(json.loads(SHOWN.read_text()).items() if SHOWN.exists() else ()):
        there = {claim["test"] for claim in claimed.get(row, ())}
        failed = [test for test, seen in tests.items() if seen["outcome"] == "failed" and test in there]
        if failed:
            sys.stderr.write(f"{row} failed when it ran last: {', '.join(failed)}\n")
    return 0


def claims() -> dict[str, list[Claim]]:
    """Row -> what tests claim about it. Asked of pytest, so that marks are found wherever they stand."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--rows", str(out)]
        done = subprocess.run([*argv, "tests"], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-4000:] + done.stderr)
        found: dict[str, list[Claim]] = {}
        for test, claimed in json.loads(out.read_text()).items():
            for claim in claimed:
                found.setdefault(claim["row"], []).append(claim | {"test": test})
    return found


def page(sections: Mapping[str, Mapping[str, str]], found: Mapping[str, list[Claim]]) -> str:
    """The whole text."""
    rows = [row for section in sections.values() for row in section]
    differ = [row for row in rows if _differences(found.get(row, ()))]
    works = [row for row in rows if row in found and row not in differ]
    count = f"Of {len(rows)} rows, {len(works)} work, {len(differ)} differ, and {len(rows) - len(works) - len(differ)} "
    parts = [INTRODUCTION, count + "are not shown yet.\n"]
    for title, section in sections.items():
        lines = ["| | what | verdict | shown with |", "|---|---|---|---|"]
        for row, what in section.items():
            mine = found.get(row, ())
            clients = ", ".join(sorted({claim["client"] for claim in mine}))
            lines.append(f"| {row} | {what} | {_verdict(mine)} | {clients} |")
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _verdict(mine: Iterable[Claim]) -> str:
    mine = list(mine)
    differences = _differences(mine)
    if differences:
        return "differs: " + "; ".join(differences).replace("|", "\\|").replace("\n", " ")
    return "works" if mine else "not shown yet"


def _differences(mine: Iterable[Claim]) -> list[str]:
    return sorted({claim["differs"] for claim in mine if claim["differs"]})


if __name__ == "__main__":
    sys.exit(main())
