"""Warnings about rules for errors that can never do anything, or not what they say."""

from __future__ import annotations

from collections.abc import Iterator

from amends_server.engine.checks.problem import Problem, warning
from amends_server.engine.definition import ErrorRule, Kind, OnError, Step


def advise_on_rules(at: str, step: Step) -> Iterator[Problem]:
    """Yield the warnings for a step of a definition that `validation.check` found no errors in."""
    for j, rule in enumerate(step.on_error):
        field = f"{at}.on_error[{j}]"
        taken = _taken(rule, step.on_error[:j])
        if taken is not None:
            message = f"Rules before this one take {taken}: put this one before them, or leave it out."
            yield warning(field, "RULE_UNREACHABLE", message)
        if rule.then is OnError.RETRY and step.retry is not None and step.retry.attempts_max == 1:
            message = "The step has one attempt, so that nothing is tried again: give its retry policy more."
            yield warning(field, "RULE_WITHOUT_ATTEMPTS", message)
        if rule.then is OnError.COMPENSATE and step.kind is Kind.RETRIABLE:
            message = (
                "A retriable step turns no saga back, so that this error makes it STUCK: have it continue or retry, or"
                " leave the rule out."
            )
            yield warning(field, "RULE_WITHOUT_EFFECT", message)


def _taken(rule: ErrorRule, earlier: tuple[ErrorRule, ...]) -> str | None:
    """Return what of a rule's errors is taken by earlier ones, if that is all of them."""
    takers = [each for each in earlier if each.when is None or each.when == rule.when]
    if any(not each.codes for each in takers):
        return "every error"
    codes = {code for each in takers for code in each.codes}
    return f"{', '.join(sorted(rule.codes))} already" if rule.codes and codes >= set(rule.codes) else None
