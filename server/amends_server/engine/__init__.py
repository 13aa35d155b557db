"""The pure core: definitions, events, state and decisions, without I/O, clock or randomness."""
