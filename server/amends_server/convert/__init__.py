"""Between the engine's types and the messages of the wire, one noun a module. What comes from outside is checked here."""
