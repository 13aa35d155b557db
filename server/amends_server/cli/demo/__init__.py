"""The demo: what `amends demo` runs and shows."""
