"""Afterswarm: Docker Swarm's successor, one daemon per host that speaks the Docker Engine API."""

__version__ = "0.1.0"
