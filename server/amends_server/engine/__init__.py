"""The saga engine: pure functions from states and commands to events. No I/O, no clock, no randomness."""
