"""Messages: Liquid templates, compiled when the rule set loads, bounded when they are rendered.

Only what the caller passes in can be seen: no files, no includes, no clock. A value is never read
as a template again, so `{{ … }}` in a trait stays the literal text that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import wraps
from io import StringIO
from typing import Any, Final

import msgspec
from liquid import BoundTemplate, Environment, RenderContext
from liquid.exceptions import LiquidError
from liquid.filter import with_context
from liquid.output import LimitedStringIO
from liquid.static_analysis import TemplateAnalysis

from engine.domain.offers.rules import Render
from engine.formats.problems import did_you_mean

MOST_BYTES: Final = 4096
"""Of a rendered text: what APNs and FCM take for a whole push."""

LONGEST_TEMPLATE: Final = 10_000
_MOST_ITERATIONS: Final = 1000
_MOST_VALUE: Final = 2 * MOST_BYTES
"""Characters or items that a filter may take or give, so that no chain of them grows a text without end."""

Members = Mapping[str, Collection[str] | None]
"""What a template may read: the names below each root, None where anything may stand there."""


class TemplateProblem(msgspec.Struct, frozen=True):
    """One thing wrong at `offset` (from 0, in characters) of the template. `name` is the dotted name
    that is not there, where that is what is wrong."""

    message: str
    offset: int
    suggestion: str | None = None
    name: str = ""


class TemplateError(ValueError):
    """A template that cannot be used, with every problem that was found."""

    def __init__(self, problems: Collection[TemplateProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.offset))
        super().__init__("; ".join(problem.message for problem in self.problems))


class Template:
    """A compiled template, or a text without variables. Travels between processes as its text, and is
    compiled there when it is first wanted: a thousand at once would hold up whoever takes them in."""

    __slots__ = ("_whole", "text")

    def __init__(self, text: str, whole: BoundTemplate | str | None) -> None:
        self.text = text
        self._whole = whole

    def __call__(self, values: Mapping[str, Any]) -> str:
        if self._whole is None:
            self._whole = _ENVIRONMENT.from_string(self.text)
        return self._whole if isinstance(self._whole, str) else _rendered(self._whole, values)

    def __reduce__(self) -> Any:
        return Template, (self.text, self._whole if isinstance(self._whole, str) else None)


def compile_template(text: str, members: Members | None = None) -> Render:
    """The template as a function from the values of its roots to a text.

    A value that is missing renders as nothing, and so does a part that fails or would make the text
    longer than `MOST_BYTES`; the function itself never raises. White space around the text is cut.

    Raises TemplateError for a template that is not Liquid, uses a filter that does not exist, or
    reads what `members` does not have; with `members` None anything may be read.
    """
    if len(text) > LONGEST_TEMPLATE:
        raise TemplateError([TemplateProblem(f"longer than {LONGEST_TEMPLATE:,} characters", 0)])
    if "{{" not in text and "{%" not in text:
        return Template(text, _cut(text.strip()))
    for opening, closing in (("{{", "}}"), ("{%", "%}")):
        if (at := text.rfind(opening)) > text.rfind(closing):
            raise TemplateError([TemplateProblem(f"message template: this {opening} is never closed", at)])
    try:
        template = _ENVIRONMENT.from_string(text)
        analysis = template.analyze()
    except LiquidError as error:
        raise TemplateError([_syntax_problem(text, error)]) from error
    except (RecursionError, ValueError, TypeError) as error:
        raise TemplateError([TemplateProblem("too deeply nested to be read", 0)]) from error
    problems = [*_unknown_filters(analysis), *_unknown_names(text, analysis, members)]
    if problems:
        raise TemplateError(problems)

    return Template(text, template)


def names_read(text: str) -> list[tuple[str, int]]:
    """What a sound template reads, as dotted paths of a root and a member, each with its offset."""
    if "{{" not in text and "{%" not in text:
        return []
    found = []
    for variable in (
        v for several in _ENVIRONMENT.from_string(text).analyze().globals.values() for v in several
    ):
        root, *path = variable.segments
        at = text.find(str(path[0]), variable.span.index) if path else variable.span.index
        found.append((f"{root}.{path[0]}" if path else str(root), max(at, variable.span.index)))
    return found


def choose(texts: Mapping[str, Render], locale: str | None) -> Render:
    """The text for a person's language: the exact tag, its primary language, else the first.

    `texts` must not be empty. Case does not matter, and `pt_BR` is `pt-BR`.
    """
    if locale:
        by_tag = {tag.lower(): text for tag, text in texts.items()}
        wanted = locale.replace("_", "-").lower()
        primary = wanted.split("-", 1)[0]
        for tag in (wanted, primary):
            if tag in by_tag:
                return by_tag[tag]
        for tag, text in by_tag.items():
            if tag.split("-", 1)[0] == primary:
                return text
    return next(iter(texts.values()))


def _cut(text: str) -> str:
    return text.encode()[:MOST_BYTES].decode(errors="ignore")


def _rendered(template: BoundTemplate, values: Mapping[str, Any]) -> str:
    # Liquid's own `now` and `today` read the clock: ours stand before them, present or not.
    context = RenderContext(template, globals={"now": None, "today": None, **values})
    whole = StringIO()
    left = MOST_BYTES
    for node in template.nodes:
        part = LimitedStringIO(limit=left)
        try:
            node.render(context, part)
        except Exception:  # whatever a value does to a filter, the rest of the text is worth sending
            continue
        whole.write(part.getvalue())
        left -= part.size
    return whole.getvalue().strip()


def _syntax_problem(text: str, error: LiquidError) -> TemplateProblem:
    token = error.token
    offset = token.start_index if token is not None and token.start_index >= 0 else len(text)
    said = str(error.message or "not a template")
    suggestion = None
    if token is not None and said.startswith("unexpected tag"):
        suggestion = did_you_mean(token.value, frozenset(_ENVIRONMENT.tags))
    elif said.endswith("found end of file"):
        said = said.replace("found end of file", "found the end of the text")
    return TemplateProblem(f"message template: {said}", min(offset, len(text)), suggestion)


def _unknown_filters(analysis: TemplateAnalysis) -> list[TemplateProblem]:
    known = frozenset(_ENVIRONMENT.filters)
    return [
        TemplateProblem(f'there is no filter "{name}"', span.index, did_you_mean(name, known))
        for name, spans in analysis.filters.items()
        if name not in known
        for span in spans
    ]


def _unknown_names(text: str, analysis: TemplateAnalysis, members: Members | None) -> list[TemplateProblem]:
    if members is None:
        return []
    problems = []
    for variable in (v for found in analysis.globals.values() for v in found):
        root, *path = variable.segments
        offset = variable.span.index
        if not isinstance(root, str) or root not in members:
            owner = next((name for name in members if root in (members[name] or ())), None)
            suggestion = (
                f'did you mean "{owner}.{root}"?' if owner else did_you_mean(str(root), frozenset(members))
            )
            problems.append(TemplateProblem(f'there is no "{root}" here', offset, suggestion, str(root)))
            continue
        below = members[root]
        if below is None or not path or not isinstance(path[0], str) or path[0] in below:
            continue
        found = text.find(path[0], offset + len(root))
        problems.append(
            TemplateProblem(
                f'"{root}" has no "{path[0]}"',
                found if found >= 0 else offset,
                did_you_mean(path[0], frozenset(below)),
                f"{root}.{path[0]}",
            )
        )
    return problems


def _bounded(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, refusing what is too large to take or to give."""

    @wraps(apply)
    def bounded(value: object, *arguments: Any, **named: Any) -> Any:
        for taken in (value, *arguments):
            _refuse_large(taken)
        result = apply(value, *arguments, **named)
        _refuse_large(result)
        return result

    return bounded


def _refuse_large(value: object) -> None:
    if isinstance(value, str | list | tuple | range) and len(value) > _MOST_VALUE:
        raise LiquidError("too large for a message", token=None)
    if isinstance(value, int) and value.bit_length() > 1024:
        raise LiquidError("too large for a message", token=None)


@with_context
def _date(value: object, pattern: object = "%Y-%m-%d", *, context: RenderContext) -> str:
    """A time as text. `now` is the moment of the decision, never the clock's."""
    if value in ("now", "today"):
        value = context.globals.get("now")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = datetime.fromtimestamp(value, UTC)
    return value.strftime(str(pattern)) if isinstance(value, datetime) else ""


def _environment() -> Environment:
    class Bounded(Environment):
        loop_iteration_limit = _MOST_ITERATIONS
        local_namespace_limit = _MOST_VALUE
        output_stream_limit = MOST_BYTES

    environment = Bounded()
    for tag in ("include", "render", "tablerow"):
        del environment.tags[tag]
    for name in ("safe", "escapejs"):
        del environment.filters[name]
    environment.filters = {name: _bounded(apply) for name, apply in environment.filters.items()}
    environment.add_filter("date", _date)
    return environment


_ENVIRONMENT: Final = _environment()
