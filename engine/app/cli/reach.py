"""`viewfinder reach`: how many people a rule could reach now."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from engine.adapters.postgres.accounts import accounts
from engine.adapters.postgres.store import Store
from engine.app.cli.database import with_store
from engine.app.cli.environment import errors
from engine.app.cli.why_not import known_rule, standing
from engine.app.hypothesis import Acting
from engine.domain.offers.decisions import ORDER, Decision, Outcome
from engine.domain.people.profiles import decode_profile

AT_ONCE = 1_000


def reach(rule: str, /, *, json: Annotated[bool, Parameter(help="Print one JSON object.")] = False) -> int:
    """Say how many people a rule could reach if its trigger came to everybody now, and how many each gate
    takes away.

    Parameters
    ----------
    rule
        The rule's id.
    """
    report = with_store(lambda store: _count(store, rule))
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(report)
    return 0


async def _count(store: Store, rule: str) -> dict[str, Any]:
    ruling = await standing(store)
    asked = known_rule(ruling, rule)
    now = datetime.now(UTC)
    ((total,),) = await store.fetch("count_people")
    gates: Counter[str] = Counter()
    people = reached = 0
    with Progress(TextColumn("asking"), BarColumn(), MofNCompleteColumn(), console=errors) as bar:
        task = bar.add_task("", total=total)
        after = (-1, "00000000-0000-0000-0000-000000000000")
        while rows := await store.fetch("people_after", *after, AT_ONCE):
            after = (rows[-1]["bucket"], str(rows[-1]["id"]))
            profiles = [decode_profile(row["document"]) for row in rows]
            alive = [profile for profile in profiles if profile.identities and not profile.account]
            people += len(alive)
            whom = [(person, account) for person in alive for account in asked.accounts_of(person)]
            known = await accounts(store, {account for _, account in whom if account is not None})
            acting = [Acting(account, known.get(account or "")) for _, account in whom]
            answers = asked.ask([person for person, _ in whom], now, None, acting)
            best: dict[str, str | None] = {}
            for (person, _), decisions in zip(whom, answers, strict=True):
                best[person.id] = _further(best.get(person.id, ""), _stopped_at(decisions))
            for stopped in best.values():
                if stopped is None:
                    reached += 1
                else:
                    gates[stopped] += 1
            bar.advance(task, len(rows))
    order = {reason.value: position for reason, position in ORDER.items()}
    left, funnel = people, []
    for gate in sorted(gates, key=lambda gate: order.get(gate, len(order))):
        left -= gates[gate]
        funnel.append({"gate": gate, "stopped": gates[gate], "left": left})
    return {
        "rule": rule,
        "revision": ruling.rules.revision,
        "trigger": asked.kind.value,
        "people": people,
        "reach": reached,
        "funnel": funnel,
    }


def _further(one: str | None, other: str | None) -> str | None:
    """Whom somebody acts for is theirs to choose: the gate that is further on, None for none at all."""
    order = {"": -2, "not_put_forward": -1, **{reason.value: far for reason, far in ORDER.items()}}
    return None if one is None or other is None else max(one, other, key=lambda gate: order.get(gate, -1))


def _stopped_at(decisions: tuple[Decision, ...]) -> str | None:
    """The gate at which everything stopped for somebody; None where something would be offered."""
    if any(decision.outcome is not Outcome.SUPPRESSED for decision in decisions):
        return None
    reasons = [decision.reason for decision in decisions if decision.reason is not None]
    return max(reasons, key=ORDER.__getitem__).value if reasons else "not_put_forward"


def _print(report: dict[str, Any]) -> None:
    table = Table(f"{report['rule']} ({report['trigger']})", "people", "left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("everybody", f"{report['people']:,}", f"{report['people']:,}")
    for step in report["funnel"]:
        table.add_row(step["gate"], f"-{step['stopped']:,}", f"{step['left']:,}")
    table.add_section()
    table.add_row("would be reached", "", f"{report['reach']:,}", style="bold")
    Console().print(table)
