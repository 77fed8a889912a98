"""The grammar of expressions: text to a tree whose every node knows its place in the text.

The grammar is CEL's. What it leaves out is refused here by name: see `expressions`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

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
    Macro,
    MapOf,
    Name,
    Node,
    Operator,
    Select,
    Unary,
    children,
)
from engine.domain.offers.cel_problems import refuse
from engine.domain.offers.cel_tokens import INT64_MAX, Mark, Token, tokens_of

MAX_TEXT: Final = 4_000
MAX_NODES: Final = 500
MAX_DEPTH: Final = 50
MAX_LOOPS: Final = 2

LEVELS: Final[dict[str, int]] = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
}
OPERATORS: Final[dict[str, Operator]] = {
    "+": "+", "-": "-", "*": "*", "/": "/", "%": "%", "==": "==", "!=": "!=",
    "<": "<", "<=": "<=", ">": ">", ">=": ">=", "in": "in",
}  # fmt: skip
LOGIC: Final[dict[str, Literal["&&", "||"]]] = {"&&": "&&", "||": "||"}
MACROS: Final[dict[str, Macro]] = {
    "all": "all", "exists": "exists", "exists_one": "exists_one", "filter": "filter", "map": "map",
}  # fmt: skip
CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
RESERVED: Final = frozenset((
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
))  # fmt: skip
SPOKEN: Final = {"and": "&&", "or": "||", "is": "==", "equals": "==", "mod": "%"}


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """The tree of an expression within the limits, or ExpressionError with its first problem. A tree
    is never changed, and the same text is read by more than one."""
    if len(text) > MAX_TEXT:
        raise refuse(f"longer than {MAX_TEXT:,} characters", MAX_TEXT, len(text))
    parser = Parser(tokens_of(text))
    tree = parser.whole()
    _within_limits(tree)
    return tree


def _within_limits(tree: Node) -> None:
    waiting = [(tree, 1, 0)]
    count = 0
    while waiting:
        node, depth, loops = waiting.pop()
        count += 1
        if count > MAX_NODES:
            raise refuse(f"more than {MAX_NODES} parts: split the condition", tree.start, tree.end)
        if depth > MAX_DEPTH:
            raise refuse(f"nested deeper than {MAX_DEPTH} levels", node.start, node.end)
        inside = loops + isinstance(node, Loop)
        if inside > MAX_LOOPS:
            raise refuse(f"more than {MAX_LOOPS} macros inside each other", node.start, node.end)
        source = node.source if isinstance(node, Loop) else None
        waiting.extend((child, depth + 1, loops if child is source else inside) for child in children(node))


class Parser:
    """Where we are in the tokens. Recursion is bounded by MAX_DEPTH whatever the text."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        if self.tokens[0].mark is Mark.END:
            raise refuse("there is no expression here", 0, 0)
        tree = self.expression()
        rest = self.next
        if rest.mark is not Mark.END:
            spoken = SPOKEN.get(rest.text.lower()) if rest.mark is Mark.NAME else None
            if spoken:
                raise refuse(f"for `{rest.text}`, write `{spoken}`", rest.start, rest.end, spoken)
            if rest.text == "{":
                raise refuse("messages are not part of the language", tree.start, rest.end)
            raise refuse(f"did not expect {_shown(rest)} here", rest.start, rest.end)
        return tree

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def sign(self, text: str) -> bool:
        """Step over the sign if it comes next."""
        if self.next.text == text and self.next.mark is Mark.SIGN:
            self.at += 1
            return True
        return False

    def close(self, text: str, opening: Token) -> int:
        """Step over a closing sign; the offset behind it."""
        if not self.sign(text):
            where = self.next
            spoken = SPOKEN.get(where.text.lower()) if where.mark is Mark.NAME else None
            if spoken:
                raise refuse(f"for `{where.text}`, write `{spoken}`", where.start, where.end, spoken)
            if where.mark is Mark.END:
                raise refuse(f"this `{opening.text}` is never closed", opening.start, opening.end)
            raise refuse(f"expected `{text}`, found {_shown(where)}", where.start, where.end)
        return self.tokens[self.at - 1].end

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise refuse(f"nested deeper than {MAX_DEPTH} levels", self.next.start, self.next.end)
        node = self.binary(1)
        if self.sign("?"):
            then = self.binary(1)
            if not self.sign(":"):
                raise refuse(f"expected `:`, found {_shown(self.next)}", self.next.start, self.next.end)
            otherwise = self.expression()
            node = Conditional(
                condition=node, then=then, otherwise=otherwise, start=node.start, end=otherwise.end
            )
        self.depth -= 1
        return node

    def binary(self, lowest: int) -> Node:
        left = self.unary()
        while (level := LEVELS.get(self.next.text, 0)) >= lowest and self.next.mark in (Mark.SIGN, Mark.NAME):
            operator = self.next.text
            if operator in LOGIC:
                terms = [left]
                while self.sign(operator):
                    terms.append(self.binary(level + 1))
                left = Logic(
                    operator=LOGIC[operator], terms=tuple(terms), start=left.start, end=terms[-1].end
                )
            else:
                self.at += 1
                right = self.binary(level + 1)
                left = Binary(
                    operator=OPERATORS[operator], left=left, right=right, start=left.start, end=right.end
                )
        return left

    def unary(self) -> Node:
        signs: list[Token] = []
        while self.next.mark is Mark.SIGN and self.next.text in ("!", "-"):
            signs.append(self.next)
            self.at += 1
        if len(signs) > MAX_DEPTH:
            raise refuse(f"nested deeper than {MAX_DEPTH} levels", signs[0].start, signs[-1].end)
        number = self.next
        if isinstance(number.value, int) and number.value > INT64_MAX and not _minus(signs):
            raise refuse("this number is too large", number.start, number.end)
        node = self.postfix(minus=signs.pop() if number.mark is Mark.NUMBER and _minus(signs) else None)
        for sign in reversed(signs):
            operator: Literal["!", "-"] = "-" if sign.text == "-" else "!"
            node = Unary(operator=operator, operand=node, start=sign.start, end=node.end)
        return node

    def postfix(self, minus: Token | None) -> Node:
        node = self.primary(minus)
        while self.next.mark is Mark.SIGN:
            opening = self.next
            if self.sign("."):
                word = self.member_word()
                if self.next.text == "(" and self.next.mark is Mark.SIGN:
                    node = self.call(word, node)
                else:
                    node = Select(
                        operand=node, member=word.text, member_start=word.start, quoted=False,
                        start=node.start, end=word.end,
                    )  # fmt: skip
            elif self.sign("["):
                key = self.expression()
                end = self.close("]", opening)
                if isinstance(key, Constant) and isinstance(key.value, str):
                    node = Select(
                        operand=node, member=key.value, member_start=key.start, quoted=True,
                        start=node.start, end=end,
                    )  # fmt: skip
                else:
                    node = Index(operand=node, key=key, start=node.start, end=end)
            else:
                break
        return node

    def member_word(self) -> Token:
        word = self.next
        if word.mark is not Mark.NAME or word.text == "in" or word.text in CONSTANTS:
            raise refuse(f"expected a name after `.`, found {_shown(word)}", word.start, word.end)
        _no_dunder(word)
        self.at += 1
        return word

    def primary(self, minus: Token | None) -> Node:
        token = self.next
        self.at += 1
        match token.mark:
            case Mark.NUMBER:
                value = token.value
                assert not isinstance(value, str)
                if minus is not None:
                    return Constant(value=-value, start=minus.start, end=token.end)
                return Constant(value=value, start=token.start, end=token.end)
            case Mark.TEXT:
                return Constant(value=token.value, start=token.start, end=token.end)
            case Mark.NAME:
                return self.word(token)
            case Mark.SIGN if token.text == "(":
                node = self.expression()
                self.close(")", token)
                return node
            case Mark.SIGN if token.text == "[":
                items, end = self.items("]", token)
                return ListOf(items=items, start=token.start, end=end)
            case Mark.SIGN if token.text == "{":
                return self.map_of(token)
            case _:
                raise refuse(f"expected a value, found {_shown(token)}", token.start, token.end)

    def word(self, token: Token) -> Node:
        _no_dunder(token)
        if token.text in CONSTANTS:
            return Constant(value=CONSTANTS[token.text], start=token.start, end=token.end)
        if token.text in RESERVED or token.text == "in":
            raise refuse(f"`{token.text}` is reserved and not a name", token.start, token.end)
        if self.next.text == "(" and self.next.mark is Mark.SIGN:
            return self.call(token, None)
        if token.text.lower() == "not" and self.next.mark in (Mark.NAME, Mark.TEXT, Mark.NUMBER):
            raise refuse(f"for `{token.text}`, write `!`", token.start, token.end, "!")
        return Name(name=token.text, start=token.start, end=token.end)

    def call(self, word: Token, target: Node | None) -> Node:
        opening = self.next
        self.at += 1
        arguments, end = self.items(")", opening)
        start = word.start if target is None else target.start
        if word.text == "has" and target is None:
            if len(arguments) != 1 or not isinstance(arguments[0], Select) or arguments[0].quoted:
                raise refuse("has() asks for one member with a dot, as in has(profile.tier)", word.start, end)
            return Has(member=arguments[0], start=start, end=end)
        if word.text in MACROS and target is not None:
            return _loop(MACROS[word.text], word, target, arguments, end)
        return Call(
            function=word.text, function_start=word.start, target=target, arguments=arguments,
            start=start, end=end,
        )  # fmt: skip

    def items(self, closing: str, opening: Token) -> tuple[tuple[Node, ...], int]:
        items: list[Node] = []
        while not (self.next.text == closing and self.next.mark is Mark.SIGN):
            items.append(self.expression())
            if not self.sign(","):
                break
            if closing == ")" and self.next.text == ")":
                raise refuse("expected a value after the comma", self.next.start, self.next.end)
        return tuple(items), self.close(closing, opening)

    def map_of(self, opening: Token) -> Node:
        entries: list[tuple[Node, Node]] = []
        while self.next.text != "}" or self.next.mark is not Mark.SIGN:
            key = self.expression()
            if not self.sign(":"):
                raise refuse(f"expected `:`, found {_shown(self.next)}", self.next.start, self.next.end)
            entries.append((key, self.expression()))
            if not self.sign(","):
                break
        return MapOf(entries=tuple(entries), start=opening.start, end=self.close("}", opening))


def _loop(macro: Macro, word: Token, source: Node, arguments: tuple[Node, ...], end: int) -> Node:
    if len(arguments) not in ((2, 3) if macro == "map" else (2,)):
        raise refuse(f"{macro}() takes a name and a condition, as in {macro}(x, x > 1)", word.start, end)
    variable = arguments[0]
    if not isinstance(variable, Name):
        raise refuse(f"{macro}() starts with a name for the element", variable.start, variable.end)
    return Loop(
        macro=macro, source=source, variable=variable.name, variable_start=variable.start,
        predicate=arguments[1] if macro != "map" or len(arguments) == 3 else None,
        transform=arguments[-1] if macro == "map" else None,
        start=source.start, end=end,
    )  # fmt: skip


def _minus(signs: list[Token]) -> bool:
    return bool(signs) and signs[-1].text == "-"


def _no_dunder(word: Token) -> None:
    if word.text.startswith("__"):
        raise refuse(
            f"names that start with two underscores are not allowed: `{word.text}`", word.start, word.end
        )


def _shown(token: Token) -> str:
    return "the end" if token.mark is Mark.END else f"`{token.text[:40]}`"
