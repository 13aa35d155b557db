"""`amends` with little room in memory, to which sagas that wait for others come back soon.

Run as a program by the tests of participants that hang; nothing else knows of it.
"""

from __future__ import annotations

import runpy

from amends_server import app
from amends_server.runner import keeper, places, runner

PLACES = 12

SET = (
    (app, "SAGAS_ACTIVE_MAX", PLACES),
    (runner, "KEEP_CROWDED_S", 0.1),
    (places, "LOOK_S", 0.1),
    (places, "PUT_OFF_S", 0.3),
    (keeper, "SWEEP_INTERVAL_S", 0.1),
)
"""What makes it so: in a module, the constant and its value."""

if __name__ == "__main__":
    for module, name, value in SET:
        setattr(module, name, value)
    runpy.run_module("amends_server.cli", run_name="__main__")
