"""Values: frozen dataclasses whose frozenness the type checkers prove, so that making one costs no more than it must.

Every event makes several values, and `__init__` of a class that is frozen at run time sets each field through
`object.__setattr__`, which takes four times as long as an assignment; `dataclasses.replace` goes through that too. Here
a class that is declared frozen is frozen to mypy and pyright, both strict, and has slots and a hash as it would have;
the interpreter is not asked to watch it as well. A copy is made slot by slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    import dataclasses
    from functools import cache

    def dataclass(*, frozen=False, eq=True, **options):
        """Make a class a value: `dataclasses.dataclass`, with `frozen` left to the type checkers."""
        return dataclasses.dataclass(eq=eq, unsafe_hash=frozen and eq, **options)

    def replace(value, /, **changes):
        """Return a copy of `value` with other values in the fields that are named."""
        new = _copier(value.__class__)(value)
        for name, change in changes.items():
            setattr(new, name, change)
        return new

    @cache
    def _copier(kind):
        """Return a function that copies a value of that class."""
        names = [field.name for field in dataclasses.fields(kind)]
        lines = "\n".join(f"    new.{name} = value.{name}" for name in names)
        scope = {"make": object.__new__, "kind": kind}
        exec(f"def copy(value):\n    new = make(kind)\n{lines}\n    return new", scope)  # noqa: S102 as dataclasses does
        return scope["copy"]


__all__ = ["dataclass", "replace"]
