"""Messages, rendered for winners only, in the person's language."""

from __future__ import annotations

from typing import Any

from engine.domain.offers.decisions import Message
from engine.domain.offers.eligibility import Candidate
from engine.domain.offers.scope import Scope
from engine.formats.messages import choose


def render_push(candidate: Candidate, locale: str | None) -> Message:
    """What the push says. An offer without a message of its own is announced by its id."""
    push = candidate.offer.push
    if push is None:
        return Message(title=candidate.offer.id, body="")
    variables = _variables(candidate)
    # A push in two languages at once helps nobody: only those that have both texts count.
    both = push.title.keys() & push.body.keys()
    titles, bodies = (
        {tag: text for tag, text in texts.items() if tag in both} or texts
        for texts in (push.title, push.body)
    )
    return Message(
        title=choose(titles, locale)(variables),
        body=choose(bodies, locale)(variables),
        deeplink=push.deeplink(variables) if push.deeplink is not None else None,
        image=push.image(variables) if push.image is not None else None,
    )


def render_in_app(candidate: Candidate, locale: str | None) -> Message:
    """What stands inside the app."""
    in_app = candidate.offer.in_app
    assert in_app is not None
    variables = _variables(candidate)
    return Message(
        title=choose(in_app.title, locale)(variables),
        body=choose(in_app.body, locale)(variables) if in_app.body else "",
        deeplink=in_app.deeplink(variables) if in_app.deeplink is not None else None,
        image=in_app.image(variables) if in_app.image is not None else None,
    )


def render_body(candidate: Candidate) -> dict[str, str]:
    """What an action tells its webhook."""
    webhook = candidate.offer.webhook
    assert webhook is not None
    variables = _variables(candidate)
    return {name: render(variables) for name, render in webhook.body.items()}


def _variables(candidate: Candidate) -> dict[str, Any]:
    scope: Scope = candidate.scope
    return {
        "profile": scope.profile,
        "account": scope.account,
        "member": scope.member,
        "event": scope.event,
        "geofence": scope.geofence,
        "weather": scope.weather,
        "trip": scope.trip,
        "device": scope.device,
        "local": scope.local,
        "now": scope.now,
        "offer": {"id": candidate.offer.id, "tags": sorted(candidate.offer.tags)},
    }
