"""Example participants, which are also the test beds: they use the SDK and nothing else of this project."""
