"""`actions:`: what is not offered to a person but told to a webhook."""

from __future__ import annotations

from collections.abc import Mapping

from engine.domain.offers.rules import Offer, Render, Webhook
from engine.formats.located_yaml import AnyNode, Entry, MapNode
from engine.formats.messages import Members
from engine.formats.workspace_names import Declared, template
from engine.formats.workspace_offers import purpose_of
from engine.formats.workspace_values import Problems, fields, name, shown


def action(entry: Entry, problems: Problems, declared: Declared, members: Members) -> Offer | None:
    """One entry of `actions:`. `members` is what its body may show."""
    before = len(problems)
    word = name(entry.key, problems, "the name of an action")
    if word in declared.offers:
        problems.append(entry.key.problem(f'"{word}" is an offer already'))
    known = ("purpose", "webhook", "body")
    found = fields(entry.node, problems, known, expected="fields such as {purpose: service, webhook: NAME}")
    if found is None:
        return None
    missing = [field for field in ("purpose", "webhook") if field not in found]
    problems.extend(entry.key.problem(f'an action needs a "{field}"') for field in missing)
    purpose = purpose_of(found["purpose"], problems, declared) if "purpose" in found else None
    webhook = name(found["webhook"], problems, "the name of a webhook") if "webhook" in found else None
    body = _body(found["body"], problems, members) if "body" in found else {}
    if len(problems) > before or purpose is None or webhook is None:
        return None
    return Offer(
        id=entry.key.text,
        purpose=purpose,
        webhook=Webhook(name=webhook, body=body),
        file=entry.key.source.file,
    )


def _body(node: AnyNode, problems: Problems, members: Members) -> Mapping[str, Render]:
    if not isinstance(node, MapNode):
        problems.append(
            node.problem(f'expected fields such as {{order: "{{{{ … }}}}"}}, found {shown(node)}')
        )
        return {}
    body = {}
    for word, entry in node.entries.items():
        render = template(entry.node, problems, members)
        if render is not None:
            body[word] = render
    return body
