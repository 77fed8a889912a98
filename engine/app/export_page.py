"""Everything about one person as a page that they can read: one file, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from engine.app.rights import Exported

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;margin-bottom:2rem}"
    "td,th{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}"
)


def page(found: Exported) -> str:
    """The page, as HTML."""
    profile = found.profile
    parts = [
        _table(
            "Who you are to us",
            ("Kind", "Value", "Since", "Learnt from message"),
            ((i.namespace, i.value, i.linked_at, i.message_id) for i in profile.identities),
        ),
        _table(
            "What we know of you",
            ("What", "Value", "Since", "From"),
            ((name, trait.value, trait.at, _said(found, name)) for name, trait in profile.traits.items()),
        ),
        _table("What we counted", ("What", "State"), profile.computed.items()),
        _table(
            "What you allowed",
            ("Purpose", "Answer", "When", "Where you said so"),
            (
                (name, "granted" if said.granted else "denied", said.at, said.source)
                for name, said in profile.consent.items()
            ),
        ),
        _table(
            "What you said of it before",
            ("Purpose", "Answer", "When", "Where you said so"),
            (
                (said.purpose, "granted" if said.granted else "denied", said.at, said.source)
                for said in profile.consent_history
            ),
        ),
        _table(
            "Whether we may give it to others",
            ("Answer", "When", "Where you said so"),
            (
                ("yes" if said.granted else "no", said.at, said.source)
                for said in (profile.sharing,)
                if said is not None
            ),
        ),
        _table(
            "Your devices",
            ("Device", "Type", "Push token", "Last seen"),
            ((name, a.type, a.token, a.seen_at) for name, a in profile.devices.items()),
        ),
        _table(
            "Offers made to you",
            ("When", "Offer", "Rule", "Channel"),
            ((c.at, c.offer, c.rule, c.channel) for c in profile.contacts),
        ),
        _table(
            "Businesses that you act for",
            ("Account", "Since", "What you are there"),
            (
                (account, seat.since, {name: trait.value for name, trait in seat.traits.items()})
                for account, seat in profile.accounts.items()
            ),
        ),
        *(_rows(name, rows) for name, rows in found.rows.items()),
    ]
    title = f"Your data, as of {found.exported_at:%Y-%m-%d %H:%M} UTC"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{''.join(parts)}</html>"
    )


def _said(found: Exported, name: str) -> str:
    said = found.sources[name]
    return f"{said.source.replace('_', ' ')}, {said.origin}" if said.origin else said.source.replace("_", " ")


def _table(title: str, heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows]
    if not lines:
        return ""
    top = "".join(f"<th>{escape(word)}</th>" for word in heading)
    return f"<h2>{escape(title)}</h2><table><tr>{top}</tr>{''.join(lines)}</table>"


def _rows(name: str, rows: Sequence[Any]) -> str:
    """A table of the database, a row each."""
    cells = "".join(f"<tr><td><pre>{escape(_text(row))}</pre></td></tr>" for row in rows)
    return f"<h2>{escape(name.replace('_', ' ').capitalize())} ({len(rows)})</h2><table>{cells}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return escape(value if isinstance(value, str) else _text(value).strip('"'))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = dict(value)
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
