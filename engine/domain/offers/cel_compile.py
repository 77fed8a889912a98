"""A checked tree to one Python function.

The function is straight code: each part of the tree becomes a line that gives a name its value, a
read is one `get`, and the frequent case (a comparison with a number, a text in a list of texts) is
written out behind a test of the operand's type, so that everything unusual goes through the exact
functions of `cel_values`. Nothing of the author's text gets into the code but constants, by repr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.domain.offers import cel_values
from engine.domain.offers.cel_functions import FUNCTIONS
from engine.domain.offers.cel_late import OPERATIONS, late
from engine.domain.offers.cel_nodes import (
    Binary,
    Call,
    Conditional,
    Constant,
    Has,
    Index,
    ListOf,
    Logic,
    Loop,
    MapOf,
    Name,
    Node,
    Select,
    Unary,
    count_nodes,
)
from engine.domain.offers.cel_regex import compile_pattern
from engine.domain.offers.cel_signatures import Type
from engine.domain.offers.cel_types import Shape
from engine.domain.offers.scope import Scope

COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
INLINE: Final = {Type.STRING: "str", Type.DURATION: "span"}


def compile_tree(tree: Node, shapes: Mapping[int, Shape], wanted: Type) -> Callable[[Scope], Any]:
    """The function of a tree that was found free of problems. `wanted` limits what it may give.

    Python compiles it when it is first called, a tenth of a millisecond: a third of what checking a
    workspace took went into functions that nobody called.
    """
    return Writer(shapes).function(tree, wanted)


class Writer:
    """The lines so far. `write` of a node adds those that compute it and returns its name."""

    def __init__(self, shapes: Mapping[int, Shape]) -> None:
        self.shapes = shapes
        self.lines: list[str] = []
        self.indent = 1
        self.count = 0
        self.constants: dict[str, Any] = {}
        self.variables: dict[str, str] = {}
        self.loops = 0

    def function(self, tree: Node, wanted: Type) -> Callable[[Scope], Any]:
        self.line("work = 0")
        result = self.write(tree)
        if wanted is Type.BOOL and self.is_condition(tree):
            self.line(f"return UNKNOWN if {result} is None else {result}")
        else:
            self.line(f"return outward({result}, {wanted.value!r})")
        if not any("work +=" in line for line in self.lines):
            del self.lines[0]
        return late("\n".join(["def evaluate(s):", *self.lines]), self.constants)

    def line(self, text: str) -> None:
        self.lines.append(" " * self.indent + text)

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def let(self, value: str) -> str:
        name = self.fresh()
        self.line(f"{name} = {value}")
        return name

    def constant(self, value: Any) -> str:
        name = f"K{len(self.constants)}"
        self.constants[name] = value
        return name

    def type_of(self, node: Node) -> Type:
        return self.shapes[id(node)].type

    def is_condition(self, node: Node) -> bool:
        """Whether the code of a node gives nothing but True, False and None."""
        match node:
            case Binary(operator=operator):
                return operator == "in" or operator in COMPARISONS
            case Constant(value=value):
                return isinstance(value, bool)
            case Call():
                return self.type_of(node) is Type.BOOL
            case Loop(macro=macro):
                return macro not in ("map", "filter")
        return isinstance(node, Has | Logic) or (isinstance(node, Unary) and node.operator == "!")

    def write(self, node: Node) -> str:
        match node:
            case Constant(value=value):
                return "NULL" if value is None else repr(value)
            case Name(name=name):
                return self.variables[name] if name in self.variables else self.let(f"s.{name}")
            case Select(operand=operand, member=name):
                return self.let(self.reading(operand, name))
            case Has(member=member):
                return self.let(f"{self.reading(member.operand, member.member)} is not None")
            case Index(operand=operand, key=key):
                return self.let(f"index({self.write(operand)}, {self.write(key)})")
            case Call():
                return self.call(node)
            case Unary(operator="!", operand=operand):
                inner = self.write(operand)
                if self.is_condition(operand):
                    return self.let(f"None if {inner} is None else not {inner}")
                return self.let(f"opposite({inner})")
            case Unary(operand=operand):
                return self.let(f"negative({self.write(operand)})")
            case Binary(operator="in"):
                return self.membership(node)
            case Binary():
                return self.binary(node)
            case Logic():
                return self.logic(node)
            case Conditional():
                return self.conditional(node)
            case ListOf(items=items):
                names = [self.write(item) for item in items]
                whole = f"[{', '.join(map(self.storing, items, names))}]"
                tests = [f"{name} is None" for name in names if name.startswith("v")]
                return self.let(f"None if {' or '.join(tests)} else {whole}" if tests else whole)
            case MapOf(entries=entries):
                pairs = [f"({self.write(key)}, {self.write(value)})" for key, value in entries]
                return self.let(f"distinct_map({', '.join(pairs)})")
            case Loop():
                return self.loop(node)

    def reading(self, operand: Node, member: str) -> str:
        is_root = isinstance(operand, Name) and operand.name not in self.variables
        if isinstance(operand, Name) and is_root and self.type_of(operand) is Type.MAP:
            return f"s.{operand.name}.get({member!r})"
        owner = self.write(operand)
        return f"({owner}.get({member!r}) if type({owner}) is dict else member({owner}, {member!r}))"

    def storing(self, node: Node, name: str) -> str:
        """A value as an element: the word null becomes None."""
        if isinstance(node, Constant):
            return "None" if node.value is None else name
        return f"stored({name})" if isinstance(node, Conditional) else name

    def is_number(self, node: Node, name: str) -> str:
        """A test in code that a value is a number; empty for one that is written out."""
        if isinstance(node, Constant):
            return ""
        return f"((t := type({name})) is float or t is int)"

    def binary(self, node: Binary) -> str:
        left, right = self.write(node.left), self.write(node.right)
        slow = f"{OPERATIONS[node.operator].__name__}({left}, {right})"
        types = {self.type_of(node.left), self.type_of(node.right)} - {Type.ANY}
        if isinstance(node.left, Constant) and isinstance(node.right, Constant):
            return self.let(slow)
        if node.operator not in COMPARISONS:
            if types != {Type.NUMBER}:
                self.charge(left, right)
            return self.let(slow)
        tests = []
        if types == {Type.NUMBER}:
            tests = [self.is_number(node.left, left), self.is_number(node.right, right)]
        elif len(types) == 1 and (plain := INLINE.get(next(iter(types)))):
            tests = [
                "" if isinstance(side, Constant) else f"type({name}) is {plain}"
                for side, name in ((node.left, left), (node.right, right))
            ]
        else:
            self.charge(left)
        test = " and ".join(filter(None, tests))
        return self.let(f"{left} {node.operator} {right} if {test} else {slow}" if test else slow)

    def membership(self, node: Binary) -> str:
        left = self.write(node.left)
        if isinstance(node.right, ListOf) and all(isinstance(item, Constant) for item in node.right.items):
            values = [item.value for item in node.right.items if isinstance(item, Constant)]
            slow = f"is_in({left}, {self.constant(values)})"
            if isinstance(node.left, Constant):
                return self.let(slow)
            if values and all(isinstance(value, str) for value in values):
                return self.let(
                    f"{left} in {self.constant(frozenset(values))} if type({left}) is str else {slow}"
                )
            if values and all(map(cel_values.is_number, values)):
                test = self.is_number(node.left, left)
                return self.let(f"{left} in {self.constant(frozenset(values))} if {test} else {slow}")
            return self.let(slow)
        right = self.write(node.right)
        self.charge(right)
        return self.let(f"is_in({left}, {right})")

    def logic(self, node: Logic) -> str:
        """False ends an `&&` and True an `||`, wherever they stand; else one unknown makes it unknown."""
        ends, other = ("False", "True") if node.operator == "&&" else ("True", "False")
        result = self.fresh()
        for number, term in enumerate(node.terms):
            if number:
                self.line(f"if {result} is not {ends}:")
                self.indent += 1
            value = self.write(term)
            if number:
                self.line(f"if {value} is not {other}: {result} = {ends} if {value} is {ends} else None")
                self.indent -= 1
            elif self.is_condition(term):
                self.line(f"{result} = {value}")
            else:
                self.line(f"{result} = {value} if {value} is True or {value} is False else None")
        return result

    def conditional(self, node: Conditional) -> str:
        result = self.fresh()
        condition = self.write(node.condition)
        for test, outcome in (
            (f"if {condition} is True:", node.then),
            (f"elif {condition} is False:", node.otherwise),
        ):
            self.line(test)
            self.indent += 1
            self.line(f"{result} = {self.write(outcome)}")
            self.indent -= 1
        self.line(f"else: {result} = None")
        return result

    def call(self, node: Call) -> str:
        parts = ([node.target] if node.target is not None else []) + list(node.arguments)
        constants = [part.value for part in parts if isinstance(part, Constant)]
        if node.function == "matches":
            subject = self.write(parts[0])
            self.charge(subject, rate=100)
            return self.let(f"{self.constant(compile_pattern(str(constants[-1])))}({subject})")
        if node.function in ("duration", "timestamp") and constants:
            return self.constant(FUNCTIONS[node.function](*constants))
        names = [self.write(part) for part in parts]
        if node.function != "size" and not node.function.startswith("get"):
            self.charge(*names)
        return self.let(f"call_{node.function}({', '.join(names)})")

    def charge(self, *names: str, rate: int = 1) -> None:
        """Inside a macro, going through a long text or list is work too."""
        costs = " + ".join(f"cost({name})" for name in names if name.startswith("v"))
        if self.loops and costs:
            self.line(f"work += ({costs}) * {rate}")

    def loop(self, node: Loop) -> str:
        source = self.write(node.source)
        result, element = self.fresh(), self.fresh()
        items = self.let(f"elements({source})")
        parts = [part for part in (node.predicate, node.transform) if part is not None]
        self.line(f"{result} = None")
        self.line(f"if {items} is not None: work += len({items}) * {sum(map(count_nodes, parts))}")
        self.line(f"if {items} is not None and work <= MAX_WORK:")
        self.indent += 1
        start = {"all": "True", "exists": "False", "exists_one": "0"}.get(node.macro, "[]")
        self.line(f"{result} = {start}")
        self.line(f"for {element} in {items}:")
        self.indent += 1
        outer, self.variables = self.variables, {**self.variables, node.variable: element}
        self.loops += 1
        self.turn(node, result, element)
        self.loops -= 1
        self.variables = outer
        self.indent -= 1
        if node.macro == "exists_one":
            self.line(f"if {result} is not None: {result} = {result} == 1")
        self.indent -= 1
        return result

    def turn(self, node: Loop, result: str, element: str) -> None:
        """What is done with one element."""
        stop = f"{result} = None; break"
        self.line("if work > MAX_WORK:")
        self.line(f" {stop}")
        kept = self.write(node.predicate) if node.predicate is not None else "True"
        if node.macro in ("all", "exists"):
            ends, other = ("False", "True") if node.macro == "all" else ("True", "False")
            self.line(f"if {kept} is {ends}:")
            self.line(f" {result} = {ends}; break")
            self.line(f"if {kept} is not {other}: {result} = None")
            return
        if node.predicate is not None:
            self.line(f"if {kept} is False: continue")
            self.line(f"if {kept} is not True:")
            self.line(f" {stop}")
        if node.macro == "exists_one":
            self.line(f"{result} += 1")
        elif node.transform is None:
            self.line(f"{result}.append({element})")
        else:
            value = self.write(node.transform)
            self.line(f"if {value} is None:")
            self.line(f" {stop}")
            self.line(f"{result}.append({self.storing(node.transform, value)})")
