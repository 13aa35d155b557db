"""Definitions on the command line: the commands for them, and how they are read, checked, compared and drawn."""
