"""How sagas are started, followed and steered: the client, its connections, and what it gives."""
