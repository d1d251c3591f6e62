"""Decisions: synchronous, total, deterministic. Nothing here knows a clock, a loop or a socket."""
