"""`afterswarm doctor`."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `doctor` onto the command line."""
    doctor = commands.add_parser("doctor", help="is everything here that a swarm needs? One line each")
    doctor.add_argument("--peer", metavar="ADDRESS", help="also: are the ports open towards this host?")
