"""What every test needs."""

from __future__ import annotations

import asyncio
import os

from hypothesis import settings

# The plugin for virtual time asks for the current loop before tests without one, too, and asyncio would make one that
# nobody closes: say that there is none.
asyncio.set_event_loop(None)

# CI judges a change, so it draws the same examples each time; new ones are drawn wherever else the suite runs.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
