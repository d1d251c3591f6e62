"""docs/compatibility.md says of every row what the tests say, and no test claims what nobody asks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "compatibility.py"


def test_the_page_is_what_the_tests_say() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_row_has_a_verdict() -> None:
    sections = tomllib.loads((ROOT / "tests/api/rows/rows.toml").read_text())
    rows = {row: title for section in sections.values() for row, title in section.items()}
    said = re.findall(r"^\| (\w\w-\d\d) \| (.+?) \| (works|differs: .+|not shown yet) \| .*\|$", page(), re.MULTILINE)
    assert [row for row, _, _ in said] == list(rows)
    assert {row: title for row, title, _ in said} == rows


def page() -> str:
    return (ROOT / "docs/compatibility.md").read_text()


TEST = """
import pytest

@pytest.mark.row("{row}", "SW-02", client="docker-py")
def test_it():
    assert {right}

@pytest.mark.row("SW-03", differs="so")
def test_other():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A checkout with the recorder and one file of tests."""
    for name in ("tests/conftest.py", "tests/api/rows/rows.toml", "scripts/compatibility.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "docs").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  row\n  lab\n")
    return tmp_path


def run(suite: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=suite, capture_output=True, text=True, check=False)


def test_runs_are_recorded_and_merged(suite: Path) -> None:
    shown = suite / "build/compatibility.json"
    test = suite / "tests/test_it.py"
    test.write_text(TEST.format(row="SW-01", right="True"))
    assert run(suite, "-m", "pytest", "-q", "tests").returncode == 0
    said = {"client": "docker-py", "outcome": "passed"}
    first = json.loads(shown.read_text())
    assert first["SW-01"] == first["SW-02"] == {"tests/test_it.py::test_it": said}
    test.write_text(TEST.format(row="SW-01", right="False"))
    assert run(suite, "-m", "pytest", "-q", "tests", "-k", "test_it").returncode == 1
    second = json.loads(shown.read_text())
    assert second["SW-01"]["tests/test_it.py::test_it"]["outcome"] == "failed"
    assert second["SW-03"] == first["SW-03"]
    made = run(suite, "scripts/compatibility.py")
    assert "SW-01 failed when it ran last" in made.stderr
    text = (suite / "docs/compatibility.md").read_text()
    assert "| works | docker-py |" in text
    assert "| differs: so | the API |" in text


def test_a_page_that_is_stale_is_noticed(suite: Path) -> None:
    test = suite / "tests/test_it.py"
    test.write_text(TEST.format(row="SW-01", right="True"))
    assert run(suite, "scripts/compatibility.py", "--check").returncode == 1
    assert run(suite, "scripts/compatibility.py").returncode == 0
    assert run(suite, "scripts/compatibility.py", "--check").returncode == 0
    test.write_text(TEST.format(row="SW-04", right="True"))
    assert run(suite, "scripts/compatibility.py", "--check").returncode == 1


def test_a_row_that_nobody_knows_is_refused(suite: Path) -> None:
    (suite / "tests/test_it.py").write_text(TEST.format(row="SW-99", right="True"))
    done = run(suite, "-m", "pytest", "-q", "tests")
    assert done.returncode == 4
    assert "SW-99" in done.stderr
