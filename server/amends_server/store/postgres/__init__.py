"""The store in a PostgreSQL database, which several orchestrators may share."""
