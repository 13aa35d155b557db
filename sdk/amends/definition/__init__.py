"""How a definition is written in Python: steps, references to what is known only while a saga runs, and templates."""
