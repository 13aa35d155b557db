"""Expressions over the context of a saga: CEL (https://cel.dev), behind the little of it that the engine needs.

An expression reads `input`, `steps.<id>.output`, `steps.<id>.error`, `saga.{id,namespace,definition,labels}` and, where
a business error is handled, `error`. What has no value is null. Each of these is a variable of its own, so a name that
is not there is found when the expression is compiled.

Numbers are CEL's: an integer of JSON is an int of 64 bits, any other number a double, and the two do not mix but in
comparisons (write `double(x)`). Results are JSON values: null, booleans, ints, finite doubles, strings, lists, and maps
with string keys. A uint becomes an integer; bytes, timestamps, durations and types have to be made strings first.

Whoever writes an expression may be careless or hostile, and CEL cannot be interrupted. So everything that costs is
bounded before: the text, the loops in it and how far they can make data grow, the data that is read, and the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from math import isfinite, prod

from cel_expr_python import cel

from amends_server.engine.data.jsonvalue import DEPTH_MAX, JsonValue, TemplateError
from amends_server.engine.data.parts import Names, Parts, longest, parts_of, pick, size
from amends_server.engine.data.path import ROOT_LENGTHS, SAGA_FIELDS, STEP_FIELDS, Root, Values
from amends_server.engine.value import dataclass

LENGTH_MAX = 2_000
"""Characters of an expression: more is a program, which belongs into a step."""

LOOPS_MAX = 4
"""map, filter, all, exists and exists_one in an expression."""

GROWTH_MAX = 64
"""How often loops may repeat what they go through, all together: each use of a loop's variable may copy its value."""

DATA_SIZE_MAX = 64 * 1024
"""Of the values that an expression reads, in characters and items: a plain path passes on any amount. What it reaches
by names, as `input.order.id`, counts alone; of what it looks into by loops, indexes and functions, all counts."""

WORK_MAX = 1 << 28
"""Of an expression with loops: turns, times names, times the size of the data. So many bytes are copied in a second."""

TURNS_MAX = 10_000
"""How often loops turn in one evaluation; CEL stops there."""

ENVIRONMENTS_KEPT = 256
"""Sets of variables: each takes 0.1 MB and a millisecond to make, far more than an expression that goes by it."""

RESULT_SIZE_MAX = 64 * 1024
"""Of a result, in characters and items, counted as JSON holds them: what is shared in memory is written out there."""

Type = cel.Type
"""What is known of a value before there is one."""

_INT_MAX = (1 << 63) - 1
_LOOPS = ("map", "filter", "all", "exists", "exists_one")
_LOOP = re.compile(rf"\b(?:{'|'.join(_LOOPS)})\b\s*\(\s*([A-Za-z_]\w*)")
_MATCHES = re.compile(r"\bmatches\b")
_MATCHES_LITERAL = re.compile(
    r"""\.matches\(\s*(?:[rR](?:"[^"]*(?<!\\)"|'[^']*(?<!\\)')|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*\)"""
)
_RAW_QUOTE = re.compile(r"""[bB]?[rR][^\n]*\\['"]""", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_]\w*")
_TOKEN = re.compile(
    r"""(?P<text>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
    r"""|(?P<comment>//[^\n]*)|(?P<chain>\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)|(?P<other>.)""",
    re.DOTALL,
)
_QUOTED_NAME = re.compile(r"""["']([A-Za-z_]\w*)["']""")
_BEFORE_TEST = frozenset({"", *"([{,&|?:"})  # between these a test stands alone: nothing else binds its sides
_AFTER_TEST = frozenset({"", *")]},&|?:"})
_REPORT = re.compile(r"<input>:(-?\d+):(-?\d+): (.*?)(?: \(in container '.*?'\))?$", re.MULTILINE)
_CODE = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_MISSING = re.compile(r'Key not found in map : "(.*)"')
_TYPES_ONLY = re.compile(r"No matching overloads found : [^\s(\"]+(?:\([\w., ]*\))?")
_PLAIN = {"NULL", "BOOL", "INT", "UINT", "DOUBLE", "STRING"}
_NO_JSON = {"BYTES", "TIMESTAMP", "DURATION", "TYPE"}


@dataclass(frozen=True, slots=True)
class Variable:
    """Where an expression reads from the context: the root and the names after it, and where in the text it begins."""

    root: Root
    rest: tuple[str, ...]
    position: int

    @property
    def name(self) -> str:
        """The root as CEL writes it."""
        return ".".join(self.root)


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """An expression that was compiled. `reads` tells what of each root."""

    text: str
    variables: tuple[Variable, ...]
    roots: tuple[Root, ...]
    reads: dict[Root, Parts]
    loops: int
    nesting: int
    names: int
    program: cel.Expression

    def evaluate(self, values: Values) -> JsonValue:
        """Return the value.

        :raises TemplateError: if there is none, with the expression and the reason.
        """
        data = {".".join(root): pick(values.root(root, self.text), self.reads[root]) for root in self.roots}
        self._check_cost(data)
        try:
            value = self.program.eval(data={name: _prepare(root) for name, root in data.items()})
            return _Result(self.text).read(value, DEPTH_MAX)
        except RuntimeError as problem:
            raise TemplateError(f"`{self.text}` has no value: {_why(str(problem), self.text)}.") from None

    def holds(self, values: Values) -> bool:
        """Return the value of a condition.

        :raises TemplateError: if it is neither true nor false.
        """
        value = self.evaluate(values)
        if not isinstance(value, bool):
            raise TemplateError(f"`{self.text}` must be true or false, and is neither here.")
        return value

    def _check_cost(self, data: dict[str, JsonValue]) -> None:
        weight = size(list(data.values()), DATA_SIZE_MAX)
        if weight > DATA_SIZE_MAX:
            raise TemplateError(
                f"`{self.text}` reads more than {DATA_SIZE_MAX} characters and items; name the fields that it needs, or"
                " pass the data on by a plain path, and have a step look into it."
            )
        turns = min(TURNS_MAX, self.loops * max(len(self.text), longest(list(data.values()))) ** self.nesting)
        if self.loops and turns * self.names * weight > WORK_MAX:
            raise TemplateError(f"`{self.text}` goes through too much data; have a step look into it.")


def compile_expression(text: str, *, error: bool = False) -> Expression:
    """Compile an expression. Whether the steps that it names are visible is for the caller to check.

    :raises TemplateError: if it is no sound expression, with the place.
    """
    loops = _check_text(text)
    variables = tuple(_variables(text, error=error))
    roots = tuple(dict.fromkeys(variable.root for variable in variables))
    program = _compile(text, {".".join(root): Type.DYN for root in roots})
    kind = program.return_type().name().partition("<")[0]
    if kind in _NO_JSON:
        raise TemplateError(f"`{text}` is a {kind.lower()}, which JSON does not have: make it a string or a number.")
    names = len(_NAME.findall(text))
    reads = {root: parts_of({rest for found, rest in _read(text, variables) if found == root}) for root in roots}
    return Expression(text, variables, roots, reads, loops, _nesting(text), names, program)


def check_types(text: str, types: dict[str, Type]) -> Type | None:
    """Check an expression that was compiled with what is known of types, by dotted names.

    :raises TemplateError: if an operator does not fit.
    """
    if "has(" in text.replace(" ", ""):  # CEL takes has(a.b) for the value of a variable `a.b`
        return None
    return _compile(text, types).return_type()


def _compile(text: str, variables: dict[str, Type]) -> cel.Expression:
    try:
        return _environment(tuple(sorted((name, kind.name()) for name, kind in variables.items()))).compile(text)
    except RuntimeError as problem:
        raise TemplateError(_complaint(text, str(problem))) from None


@lru_cache(ENVIRONMENTS_KEPT)
def _environment(variables: tuple[tuple[str, str], ...]) -> cel.Env:
    return cel.NewEnv(variables={name: _type_named(kind) for name, kind in variables})


def _type_named(name: str) -> Type:
    if name.startswith("LIST<"):
        return Type.List(_type_named(name[5:-1]))
    return {"INT": Type.INT, "STRING": Type.STRING, "BOOL": Type.BOOL, "DYN": Type.DYN}[name]


def _check_text(text: str) -> int:
    """Refuse what could cost too much, whatever the data are; return the number of loops."""
    if len(text) > LENGTH_MAX:
        raise TemplateError(f"An expression may have {LENGTH_MAX} characters at the most, and this one {len(text)}.")
    for token in _TOKEN.finditer(text):  # comments and such raw strings could hide from our checks what CEL sees
        if token["comment"]:
            raise TemplateError("An expression holds no comments: leave them out, or describe the definition.")
        if token["text"] and _RAW_QUOTE.match(token["text"]):
            raise TemplateError(f"{token['text']}: a raw string holds no backslash before a quote: write it without r.")
    loops: list[str] = _LOOP.findall(text)
    if len(loops) > LOOPS_MAX:
        raise TemplateError(f"`{text}` has {len(loops)} loops, and {LOOPS_MAX} are the most: have a step do it.")
    if prod(_uses(text, variable) for variable in loops) > GROWTH_MAX:
        raise TemplateError(f"`{text}` uses the variables of its loops too often: have a step do it.")
    if len(_MATCHES.findall(text)) != len(_MATCHES_LITERAL.findall(text)):
        raise TemplateError(f"`{text}` must give the pattern of `matches` as a literal, such as x.matches('^a+$').")
    return len(loops)


def _uses(text: str, variable: str) -> int:
    return max(1, len(re.findall(rf"\b{variable}\b", text)) - 1)


def _nesting(text: str) -> int:
    """Return how many loops stand inside of each other at the most."""
    opened: list[bool] = []
    deepest, loop = 0, False
    for token in _TOKEN.finditer(text):
        symbol = token["other"]
        if symbol == "(":
            opened.append(loop)
            deepest = max(deepest, sum(opened))
        elif symbol == ")" and opened:
            opened.pop()
        if symbol is None or not symbol.isspace():
            loop = token["chain"] is not None and token["chain"].rpartition(".")[2] in _LOOPS
    return deepest


def _variables(text: str, *, error: bool) -> Iterator[Variable]:
    """Yield what a text names of the context."""
    for token in _TOKEN.finditer(text):
        chain = token["chain"]
        if chain is None or chain.startswith("."):
            continue
        names = tuple(chain.split("."))
        length = ROOT_LENGTHS.get(names[0])
        if length is not None and _is_root(names[:length], error=error):
            called = text[token.end() :].lstrip().startswith("(")  # then the last name is a function's
            yield Variable(names[:length], names[length : -1 if called else None], token.start())


def _read(text: str, variables: tuple[Variable, ...]) -> Iterator[tuple[Root, Names]]:
    """Yield what is read: of which root, by which names."""
    tokens = [token for token in _TOKEN.finditer(text) if not token[0].isspace()]
    places = {token.start(): place for place, token in enumerate(tokens)}
    for variable in variables:
        yield variable.root, variable.rest + _sought([token[0] for token in tokens], places[variable.position])
    for token in tokens:
        chain = token["chain"]
        if chain is not None and chain.startswith("."):  # a field of something, or in CEL also a name of its own
            names = tuple(chain[1:].split("."))
            yield names[: ROOT_LENGTHS.get(names[0], 0)], ()


def _sought(tokens: list[str], place: int) -> Names:
    """Return the one name that is looked for in what stands at a place, as in `"name" in input`; else none."""
    before, sought, word, _, after = ["", "", "", *tokens, ""][place : place + 5]
    name = _QUOTED_NAME.fullmatch(sought)
    return (name[1],) if name and word == "in" and before in _BEFORE_TEST and after in _AFTER_TEST else ()


def _is_root(names: tuple[str, ...], *, error: bool) -> bool:
    match names:
        case ("input",):
            return True
        case ("steps", _, field):
            return field in STEP_FIELDS
        case ("saga", field):
            return field in SAGA_FIELDS
        case _:
            return names == ("error",) and error


def _complaint(text: str, problem: str) -> str:
    report = _REPORT.search(problem)
    if report is None:
        return f"`{text}` is no sound expression: {_reason(problem)}."
    line, column, what = int(report[1]), int(report[2]), report[3]
    what = what.removesuffix(" [INVALID_ARGUMENT]").rstrip(".")
    if line < 0:
        return f"`{text}` is no sound expression: {what}."
    if what.startswith("undeclared reference to"):
        what += ", which is neither in the context nor a function"
    return f"`{text}` is no sound expression at {line}:{column}: {what}."


def _reason(problem: str) -> str:
    first = problem.split("\n", 1)[0]
    while first != (shorter := _CODE.sub("", first)):
        first = shorter
    return first.strip().rstrip(".")[:200]


def _why(problem: str, text: str) -> str:
    """Return what the library says of an evaluation, without the data that it may quote (I46)."""
    reason = _reason(problem)
    missing = _MISSING.fullmatch(reason)
    if missing is not None and missing[1] in _NAME.findall(text):  # it stands in the expression, and is no secret
        return f"there is no `{missing[1]}`"
    return reason if _TYPES_ONLY.fullmatch(reason) else re.split(r"[:\"]", reason, maxsplit=1)[0].strip()


class _Result:
    """Reads one result, as far as it is within its size."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = RESULT_SIZE_MAX

    def read(self, value: cel.Value, levels: int) -> JsonValue:
        """Return a value as JSON has it."""
        kind = value.type().name().partition("<")[0]
        self._pay(1)
        if kind in _PLAIN:
            return self._scalar(value.plain_value())
        if kind not in ("LIST", "MAP"):
            raise TemplateError(f"`{self._text}` has no value: {self._why_not(kind, value)}.")
        if levels == 0:
            raise TemplateError(f"The value of `{self._text}` nests deeper than {DEPTH_MAX} levels.")
        inner: list[cel.Value] | dict[object, cel.Value] = value.value()
        if isinstance(inner, list):
            return [self.read(item, levels - 1) for item in inner]
        return {self._key(key): self.read(item, levels - 1) for key, item in inner.items()}

    def _scalar(self, value: object) -> JsonValue:
        if isinstance(value, str):
            self._pay(len(value))
            return value
        if isinstance(value, float) and not isfinite(value):
            raise TemplateError(f"`{self._text}` has no value: {value} is no number that JSON has.")
        if isinstance(value, int) and value > _INT_MAX:
            raise TemplateError(f"`{self._text}` has no value: {value} is larger than integers may be.")
        assert value is None or isinstance(value, bool | int | float), f"no scalar: {value!r}"
        return value

    def _key(self, key: object) -> str:
        if not isinstance(key, str):
            raise TemplateError(f"`{self._text}` has no value: the keys of a JSON object are strings.")
        self._pay(len(key))
        return key

    def _why_not(self, kind: str, value: cel.Value) -> str:
        if kind == "ERROR":
            return _why(str(value.plain_value()), self._text)
        return f"it is a {kind.lower()}, which JSON does not have"

    def _pay(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TemplateError(f"The value of `{self._text}` has more than {RESULT_SIZE_MAX} characters and items.")


def _prepare(value: JsonValue) -> JsonValue:
    """Return what CEL can take without loss: integers beyond 64 bits become doubles."""
    if isinstance(value, dict):
        return {_prepare_text(key): _prepare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_prepare(item) for item in value]
    if isinstance(value, str):
        return _prepare_text(value)
    if isinstance(value, int) and not -_INT_MAX - 1 <= value <= _INT_MAX:
        return _double(value)
    return value


def _prepare_text(text: str) -> str:
    if "\0" in text:  # the library would cut it off there
        raise TemplateError("The data hold a NUL character, and no expression can read them; pass them on by a path.")
    return text


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise TemplateError("The data hold a number that is too large to calculate with.") from None
