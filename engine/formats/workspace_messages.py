"""`message:` of an offer: what the push says, and what waits inside the app."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.rules import InAppMessage, PushMessage, Render
from engine.formats.located_yaml import AnyNode, MapNode
from engine.formats.messages import Members
from engine.formats.workspace_names import template
from engine.formats.workspace_values import Problems, duration, fields, is_language, name, shown

_PUSH: Final = ("title", "body", "deeplink", "image", "ttl")
_IN_APP: Final = ("placement", "title", "body", "deeplink", "image")
_EXPECTED: Final = "fields such as {title: …, body: …}"
DEFAULT_TIME_TO_LIVE: Final = timedelta(hours=4)


class Messages(msgspec.Struct, frozen=True):
    """One for each channel that an offer has something to say on."""

    push: PushMessage | None = None
    in_app: InAppMessage | None = None


def messages(node: AnyNode, problems: Problems, members: Members) -> Messages:
    """What an offer, or one variant of it, says."""
    found = fields(node, problems, ("push", "in_app"), expected="{push: {title: …, body: …}}")
    if found is None:
        return Messages()
    if not found and isinstance(node, MapNode) and not node.entries:
        problems.append(node.problem('"push" is missing'))
    return Messages(
        _push(found["push"], problems, members) if "push" in found else None,
        _in_app(found["in_app"], problems, members) if "in_app" in found else None,
    )


def _push(node: AnyNode, problems: Problems, members: Members) -> PushMessage | None:
    push = fields(node, problems, _PUSH, expected=_EXPECTED)
    if push is None:
        return None
    missing = [word for word in ("title", "body") if word not in push]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    title = _texts(push["title"], problems, members) if "title" in push else {}
    body = _texts(push["body"], problems, members) if "body" in push else {}
    if title and body and "" not in title and "" not in body:
        _check_languages(push, problems)
    return PushMessage(
        title=title,
        body=body,
        deeplink=template(push["deeplink"], problems, members) if "deeplink" in push else None,
        image=template(push["image"], problems, members) if "image" in push else None,
        time_to_live=(duration(push["ttl"], problems) if "ttl" in push else None) or DEFAULT_TIME_TO_LIVE,
    )


def _in_app(node: AnyNode, problems: Problems, members: Members) -> InAppMessage | None:
    found = fields(node, problems, _IN_APP, expected="fields such as {placement: home_hero, title: …}")
    if found is None:
        return None
    missing = [word for word in ("placement", "title") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    placement = (
        name(found["placement"], problems, "the name of a placement") if "placement" in found else None
    )
    title = _texts(found["title"], problems, members) if "title" in found else {}
    body = _texts(found["body"], problems, members) if "body" in found else {}
    if title and body and "" not in title and "" not in body:
        _check_languages(found, problems)
    return InAppMessage(
        placement=placement or "",
        title=title,
        body=body,
        deeplink=template(found["deeplink"], problems, members) if "deeplink" in found else None,
        image=template(found["image"], problems, members) if "image" in found else None,
    )


def _check_languages(push: Mapping[str, AnyNode], problems: Problems) -> None:
    """A push in two languages at once helps nobody."""
    title, body = push["title"], push["body"]
    for one, other, where in ((title, body, "body"), (body, title, "title")):
        if isinstance(one, MapNode) and isinstance(other, MapNode):
            problems.extend(
                msgspec.structs.replace(
                    entry.key.problem(f'the {where} has no "{tag}": people of it get another language'),
                    severity="warning",
                )
                for tag, entry in one.entries.items()
                if tag not in other.entries and is_language(tag)
            )


def _texts(node: AnyNode, problems: Problems, members: Members) -> Mapping[str, Render]:
    """A text, or texts by language, the first one for everyone else."""
    if not isinstance(node, MapNode):
        render = template(node, problems, members)
        return {} if render is None else {"": render}
    if not node.entries:
        problems.append(node.problem(f"expected text, found {shown(node)}"))
    texts = {}
    for tag, entry in node.entries.items():
        if not is_language(tag):
            hint = "text with {{ … }} needs quotes" if "{" in tag else "such as en, fr or pt-BR"
            problems.append(entry.key.problem(f'"{tag}" is no language tag', hint))
            continue
        render = template(entry.node, problems, members)
        if render is not None:
            texts[tag] = render
    return texts
