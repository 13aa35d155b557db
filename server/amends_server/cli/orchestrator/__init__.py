"""Orchestrators on the command line: the commands that run, probe, migrate, simulate and measure them."""
