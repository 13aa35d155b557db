"""An orchestrator as a process of its own: its settings come from the environment, its address is in its log."""

from __future__ import annotations

import asyncio

from amends_server.app import serve
from amends_server.config import load_settings
from amends_server.logs import set_up_logs

if __name__ == "__main__":
    settings = load_settings()
    set_up_logs(settings.log_level, settings.log_format)
    asyncio.run(serve(settings))
