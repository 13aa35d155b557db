"""Between the engine's types and the wire's messages, one noun a module. What comes from outside is checked here."""
