"""How a receiver is taken in: what is said of it looked at before it is kept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from engine.adapters.addresses import Allowed, RefusedAddress, resolved
from engine.adapters.nats_jetstream import JetStream, StreamProblem
from engine.adapters.postgres.receivers import new_secret
from engine.domain.offers.rules import RuleSet
from engine.domain.sharing.receivers import TOPICS, Receiver, Topic

SETTING = "VIEWFINDER_RECEIVERS_ALLOW"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PORTS = {"https": 443, "http": 80, "nats": 4222}
LONGEST_URL = 2_000


class NotTaken(ValueError):
    """Why a receiver is not taken in."""


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a new receiver. Without `topics` it gets only the actions that name it."""

    name: str
    url: str
    topics: list[Topic] = []
    purpose: str | None = None
    without: list[str] = []
    create_stream: bool = msgspec.field(default=False, name="createStream")

    def __repr__(self) -> str:
        return f"Wish({self.name!r})"


async def taken(wish: Wish, rules: RuleSet, may: Allowed, now: datetime) -> Receiver:
    """The receiver, with a new secret.

    Raises:
        NotTaken: it cannot be, and why.
    """
    if not _NAME.fullmatch(wish.name):
        raise NotTaken("a name has letters, digits, dots, dashes and underscores, at most 64")
    if len(set(wish.topics)) != len(wish.topics):
        raise NotTaken("a topic is named twice")
    if wish.topics and wish.purpose is None:
        raise NotTaken("what is told of people is told for a purpose: say which")
    workspace = rules.workspace
    if wish.purpose is not None and wish.purpose not in workspace.purposes:
        raise NotTaken(_unknown("purpose", wish.purpose, workspace.purposes))
    labels = {trait.label for trait in workspace.traits.values() if trait.label} | set(workspace.labels)
    for label in wish.without:
        if label not in {*labels, "personal", "location"}:
            raise NotTaken(_unknown("label", label, labels))
    await look_at(wish.url, may)
    receiver = Receiver(
        name=wish.name,
        url=wish.url,
        topics=tuple(topic for topic in TOPICS if topic in wish.topics),
        purpose=wish.purpose,
        without=tuple(sorted(set(wish.without))),
        secret=new_secret(),
        made_at=now,
    )
    if receiver.kind == "nats":
        stream = JetStream(receiver, may)
        try:
            await stream.stream(create=wish.create_stream)
        except StreamProblem as fault:
            raise NotTaken(str(fault)) from None
        finally:
            await stream.aclose()
    elif wish.create_stream:
        raise NotTaken("only nats:// has streams")
    return receiver


async def look_at(url: str, may: Allowed) -> None:
    """Whether messages may go there.

    Raises:
        NotTaken: they may not, or nobody is known there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        httpx.URL(url)  # stricter: a number with leading zeros is no address there
    except (ValueError, httpx.InvalidURL) as fault:
        raise NotTaken(f"that is no URL: {fault}") from None
    if parts.scheme not in _PORTS or not host or len(url) > LONGEST_URL or not url.isprintable():
        raise NotTaken("a receiver is at https://…, http://… (inside only) or nats://…")
    if parts.scheme != "nats" and (parts.username is not None or parts.password is not None):
        raise NotTaken("no user or password in the URL: messages are signed")
    if parts.fragment or " " in url:
        raise NotTaken("a URL has neither spaces nor a fragment")
    plain = parts.scheme == "http"
    try:
        await resolved(host, port or _PORTS[parts.scheme], may, inside_only=plain)
    except RefusedAddress:
        if plain:
            raise NotTaken(f"http:// is for hosts that {SETTING} allows: use https://") from None
        raise NotTaken(f"that is an address of the inside, which {SETTING} does not allow") from None
    except OSError:
        raise NotTaken("no host is known by that name") from None


def _unknown(what: str, word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f'there is no {what} "{word}"' + (f'; did you mean "{close[0]}"?' if close else "")


def shown(receiver: Receiver) -> dict[str, Any]:
    """A receiver as it may be shown: without its secrets."""
    return {
        "name": receiver.name,
        "kind": receiver.kind,
        "url": receiver.shown_url,
        "topics": list(receiver.topics),
        "purpose": receiver.purpose,
        "without": list(receiver.without),
        "madeAt": receiver.made_at,
        "rotatingUntil": receiver.earlier_until,
        "disabledAt": receiver.disabled_at,
        "disabledBecause": receiver.disabled_because,
    }


def unknown_to(rules: RuleSet, known: Iterable[str]) -> Sequence[tuple[str, str]]:
    """Actions that name a receiver which does not exist, each with that name."""
    names = frozenset(known)
    return [
        (action.id, action.webhook.name)
        for action in rules.actions.values()
        if action.webhook is not None and action.webhook.name not in names
    ]
