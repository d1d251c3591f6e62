"""`afterswarm install` into another root, with the real docker command line making the context."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from afterswarm.cli.main import main


@pytest.mark.real
def test_the_unit_and_the_context_are_put_in_place_and_a_second_time_changes_nothing(tmp_path, monkeypatch, capsys):
    assert shutil.which("docker"), "the suite installs docker.io"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    for _ in range(2):
        assert main(["install", "--root", str(tmp_path)]) == 0
    unit = (tmp_path / "etc/systemd/system/afterswarm.service").read_text()
    program = (
        next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=").split()
    )
    assert program[1] == "daemon"
    assert Path(program[0]).is_absolute()
    shown = subprocess.run(["docker", "context", "ls"], capture_output=True, text=True, check=True).stdout
    assert "unix:///run/afterswarm/docker.sock" in shown
    assert "afterswarm.service" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here to judge the unit")
def test_systemd_understands_the_unit(tmp_path):
    from afterswarm.cli.install import unit  # noqa: PLC0415

    path = tmp_path / "afterswarm.service"
    path.write_text(unit(sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr, done.stderr


def test_a_flag_that_is_no_socket_is_refused_with_the_form_it_takes(capsys):
    assert main(["daemon", "--listen", "tcp://0.0.0.0:1"]) == 2
    assert "unix:///PATH" in capsys.readouterr().err


def test_commands_say_what_they_are_for(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for command in ("daemon", "install", "doctor", "lab"):
        assert command in shown
    assert os.linesep in shown
