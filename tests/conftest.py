"""What every test needs."""

from __future__ import annotations

import asyncio

# The plugin for virtual time asks for the current loop before tests without one, too, and asyncio would make one that
# nobody closes: say that there is none.
asyncio.set_event_loop(None)
