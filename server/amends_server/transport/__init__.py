"""The way to participants: what is sent, over which connection, and what the answers tell."""
