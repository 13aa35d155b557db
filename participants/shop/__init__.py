"""A shop: an order is validated, its goods are reserved, its price is charged, and it is shipped."""
