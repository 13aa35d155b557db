"""How a participant is written and served: its actions, the calls they get, and the server that they answer by."""
