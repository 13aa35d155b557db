"""Sagas on the command line: the commands that start, show, list, steer and repair them."""
