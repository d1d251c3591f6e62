"""Logs of services and tasks."""
