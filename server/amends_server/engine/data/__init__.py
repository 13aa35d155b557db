"""How sagas compute with data: JSON, paths into it, expressions, templates and schemas, all in bounds."""
