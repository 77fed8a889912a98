"""`viewfinder send`: a proof of a rule's message on one's own phone, the way that all pushes go."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.adapters.postgres.outbox import Outbox, Push, Send
from engine.adapters.postgres.store import Store
from engine.app import profile_reading
from engine.app.cli.database import with_store
from engine.app.cli.environment import errors, fail
from engine.app.cli.why_not import known_rule, standing
from engine.app.rendering import render_push
from engine.app.unit_rows import PROVIDERS
from engine.domain.candidates import reachable
from engine.domain.offers.decisions import decision_id
from engine.domain.people.profiles import bucket_of

WAIT_SECONDS = 20.0
KEPT = timedelta(minutes=10)


def send(
    rule: str,
    /,
    *,
    to: Annotated[str, Parameter(help="Whom: a namespace and a value, such as user_id:me.")],
    offer: Annotated[str | None, Parameter(help="Which of the rule's offers; the first by default.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Send a rule's message to one phone, whatever the rule's conditions say. A running engine delivers it.

    It goes through the outbox, so that consent and the device are looked at as for every push; it counts
    for no cap, and is no decision.

    Parameters
    ----------
    rule
        The rule's id.
    """
    namespace, colon, value = to.partition(":")
    if not (namespace and colon and value):
        fail(f"--to {to!r}: expected a namespace and a value, such as user_id:me", 2)
    report = with_store(lambda store: _send(store, rule, namespace, value, offer))
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        Console().out(f"“{report['title']}” “{report['body']}”\n{_said(report)}", highlight=False)
    return 0 if report["state"] == "sent" else 1


async def _send(store: Store, rule: str, namespace: str, value: str, offer: str | None) -> dict[str, Any]:
    ruling = await standing(store)
    profile = await profile_reading.find_in(store, ruling.rules, namespace, value)
    if profile is None:
        fail("nobody is known by that identity", 1)
        raise AssertionError
    now = datetime.now(UTC)
    candidates = [c for c in known_rule(ruling, rule).candidates(profile, now) if c.channel == "push"]
    chosen = next((c for c in candidates if offer in (None, c.offer.id)), None)
    if chosen is None:
        fail(f"the rule {rule} puts no push{f' of {offer}' if offer else ''} forward for this person", 1)
        raise AssertionError
    device, address = reachable(profile)
    if address is None:
        fail("this person has no device that can be pushed to", 1)
        raise AssertionError
    message = render_push(chosen, profile.locale)
    bucket = bucket_of(profile.id)
    identifier = decision_id(profile.id, bucket, 0, secrets.randbits(31), now)
    proof = Send(
        bucket=bucket,
        id=identifier,
        profile_id=profile.id,
        provider=address.provider or PROVIDERS.get(address.type or "", "fcm"),
        purpose=chosen.purpose.name,
        payload=Push(
            device_id=device,
            token=address.token or "",
            title=message.title,
            body=message.body,
            deeplink=message.deeplink,
            image=message.image,
            data={"decision": identifier, "offer": chosen.offer.id, "rule": rule, "proof": "true"},
            collapse_key=identifier,
            platform=address.type,
        ),
        expires_at=now + KEPT,
        attempts=0,
        lease="",
    )
    outbox = Outbox(store.pool)
    await outbox.put(proof)
    deadline = time.monotonic() + WAIT_SECONDS
    state, code = await outbox.state(proof)
    with errors.status("waiting for a running engine to send it"):
        while state == "pending" and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            state, code = await outbox.state(proof)
    return {
        "id": identifier,
        "offer": chosen.offer.id,
        "provider": proof.provider,
        "title": message.title,
        "body": message.body,
        "state": state,
        "code": code,
    }


def _said(report: dict[str, Any]) -> str:
    match report["state"]:
        case "sent":
            return f"sent by {report['provider']}"
        case "pending":
            because = f": {report['code']}" if report["code"] else ""
            return f"waits for a running engine that has {report['provider']}{because}; void in ten minutes"
        case state:
            return f"{state}: {report['code']}"
