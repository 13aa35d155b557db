"""Completions: what it takes to finish a step whose participant answered that it is in progress."""

from __future__ import annotations

import base64
from dataclasses import astuple, dataclass
from typing import Self

import msgspec

from amends.errors import PayloadError


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Names a step of a saga, with the token that allows to finish it: whoever has it may. `str` gives it as a text.

    The text can be kept anywhere and passed on, for example in a URL; `Completion.parse` reads it. Keep it secret.
    """

    namespace: str
    saga_id: str
    step: str
    token: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a completion.

        :raises PayloadError: if it is none.
        """
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            namespace, saga_id, step, token = msgspec.json.decode(raw, type=tuple[str, str, str, str])
        except ValueError:
            raise PayloadError("This text is no completion; give the one that str(call.completion) was.") from None
        return cls(namespace=namespace, saga_id=saga_id, step=step, token=token)

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(astuple(self))).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"<completion of step {self.step} of saga {self.namespace}/{self.saga_id}>"  # the token is a secret
