"""What is wrong with a definition, or probably not meant: found before anything runs, for its author's eyes."""
