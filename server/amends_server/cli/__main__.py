"""`python -m amends_server.cli`: the command `amends` where it is not on the path."""

from __future__ import annotations

from amends_server.cli import main

if __name__ == "__main__":
    main()
