"""The floor: the least that a durable saga of three steps costs in Python, without anything that makes it useful."""
