"""What a check says of a definition: its findings, and what the failure of each step would lead to."""

from __future__ import annotations

from amends.v1 import orchestrator_pb2 as pb
from amends_server.convert.definition import plan_to_wire, problems_to_wire
from amends_server.engine.checks.plan import PLANS_STEPS_MAX, make_plans
from amends_server.engine.checks.problem import Problem, Severity, is_wrong, warning
from amends_server.engine.definition import Definition
from amends_server.engine.graph import build_graph


def check_to_wire(definition: Definition, problems: list[Problem]) -> pb.CheckDefinitionResponse:
    """Return the answer for a definition with all that was found, errors first. One with errors has no plans."""
    found = sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)
    sound, small = not is_wrong(found), len(definition.steps) <= PLANS_STEPS_MAX
    if sound and not small:
        message = f"What a failure would lead to is shown for {PLANS_STEPS_MAX} steps at the most."
        found.append(warning("steps", "PLANS_LEFT_OUT", message))
    response = pb.CheckDefinitionResponse(diagnostics=problems_to_wire(found))
    if sound and small:
        response.plans.extend(map(plan_to_wire, make_plans(build_graph(definition, ""))))
    return response
