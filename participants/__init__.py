"""Examples and test beds: services that take part in sagas and keep real state. They import `amends` only."""
