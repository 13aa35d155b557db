"""Whether a text for people says what to do next: a clause of it begins with a verb in the imperative."""

from __future__ import annotations

import re

VERBS = re.compile(
    "ask|call|cancel|change|check|choose|give|leave|look|mend|name|pass|put|raise|register|report|resolve|restart|return"
    "|run|send|start|try|wait|watch",
    re.IGNORECASE,
)
"""What people can do about an error. A verb that is missing here is added with the text that needs it."""

_CLAUSE = re.compile(r"(?:\A|[.:;,]\s+|\bthen\s+)([A-Za-z]+)\b")


def says_what_to_do(text: str) -> bool:
    """Whether a clause is an instruction, or says that there is nothing to do."""
    words = " ".join(text.split())
    return "there is nothing to do" in words.lower() or any(VERBS.fullmatch(word) for word in _CLAUSE.findall(words))
