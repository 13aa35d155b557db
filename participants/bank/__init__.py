"""A bank: accounts, and money that goes from one to another."""
