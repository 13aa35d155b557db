"""How fast amends is: workloads against processes of their own, beside the least that a durable saga costs here."""
