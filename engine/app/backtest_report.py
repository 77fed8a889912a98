"""A backtest as a table for the terminal and as a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

_BAR, _ROW, _LABEL, _WIDTH = 11, 34, 230, 860
_COLOURS = ("#8a94a6", "#2f6fed")

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p.note { opacity: .75; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; } code { font-size: .9em; }
svg { width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin: 0 .3em 0 1em; }
"""

_FIGURES = (
    ("offered", "offers made"),
    ("people", "people reached"),
    ("expectedValue", "expected value"),
    ("expectedCost", "expected cost"),
    ("decisions", "decisions"),
)


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """The figures, the reasons, and the biggest changes, side by side."""
    active, tried = report["active"], report["tried"]
    console.print(
        f"{report['events']:,} events, {_period(report)}",
        highlight=False,
    )
    table = Table("", active["name"], tried["name"], "difference")
    for column in table.columns[1:]:
        column.justify = "right"
    for field, label in _FIGURES:
        table.add_row(label, *_compared(active[field], tried[field]))
    table.add_section()
    for reason in _reasons(active, tried):
        before, after = active["suppressed"].get(reason, 0), tried["suppressed"].get(reason, 0)
        table.add_row(reason, *_compared(before, after), style="dim")
    console.print(table)
    if report["changes"]:
        changes = Table("biggest changes", "before", "after", "people gained", "people lost", "value")
        for column in changes.columns[1:]:
            column.justify = "right"
        for one in report["changes"]:
            changes.add_row(
                f"{one['rule']} → {one['offer']}",
                f"{one['before']:,}",
                f"{one['after']:,}",
                f"{one['gained']:,}",
                f"{one['lost']:,}",
                f"{one['expectedValue']:+,.2f}",
            )
        console.print(changes)
    else:
        console.print("no rule makes more or fewer offers")
    for side in (active, tried):
        if side["overlaps"]:
            first = side["overlaps"][0]
            console.print(
                f"{side['name']}: {first['people']:,} people heard from both {' and '.join(first['rules'])}",
                highlight=False,
            )
    for line in notes(report):
        console.print(line, style="dim", highlight=False)


def notes(report: Mapping[str, Any]) -> list[str]:
    """How far the report is to be trusted."""
    history = report["history"]
    said = []
    if history["recorded"]:
        said.append(
            f"the active rules made {history['reproduced']:,} of {history['recorded']:,} "
            "recorded decisions again, to the byte"
        )
    wrong = history["differing"] + history["missing"] + history["unknown"]
    if wrong:
        said.append(
            f"{history['differing']:,} were decided otherwise, {history['missing']:,} not at all, "
            f"{history['unknown']:,} are not on record; for example {', '.join(history['examples'][:3])}"
        )
    if report["peopleLeftOut"]:
        said.append(
            f"{report['peopleLeftOut']:,} people are left out: "
            "the beginning of their log is past its retention"
        )
    said.append(
        f"{report['replayed']:,} events replayed in {report['seconds']:.1f} s, "
        f"{report['eventsPerSecond']:,}/s"
    )
    return said


def page(report: Mapping[str, Any]) -> str:
    """The report as HTML, with its charts inside; it asks for nothing else."""
    active, tried = report["active"], report["tried"]
    names = (active["name"], tried["name"])
    rules = sorted({f"{r['rule']} → {r['offer']}" for side in (active, tried) for r in side["rules"]})
    offered = [
        {f"{r['rule']} → {r['offer']}": r["offered"] for r in side["rules"]} for side in (active, tried)
    ]
    reasons = _reasons(active, tried)
    days = sorted({*active["byDay"], *tried["byDay"]})
    body = [
        f"<h1>Backtest: {escape(names[1])}</h1>",
        f"<p class=note>{report['events']:,} events, {_period(report)}. "
        f"Revision <code>{escape(tried['revision'])}</code> "
        f"beside <code>{escape(active['revision'])}</code>.</p>",
        "<p>" + "".join(_key(c, n) for c, n in zip(_COLOURS, names, strict=True)) + "</p>",
        _table(
            ["", *names, "difference"],
            [[label, *_compared(active[field], tried[field])] for field, label in _FIGURES],
        ),
        "<h2>Offers by rule</h2>",
        _bars("offers by rule", rules, [[side.get(rule, 0) for rule in rules] for side in offered]),
        "<h2>Offers by day</h2>",
        _bars(
            "offers by day", days, [[side["byDay"].get(day, 0) for day in days] for side in (active, tried)]
        ),
        "<h2>Why not</h2>",
        _bars(
            "suppressed decisions by reason",
            reasons,
            [[side["suppressed"].get(reason, 0) for reason in reasons] for side in (active, tried)],
        ),
        "<h2>The biggest changes</h2>",
        _table(
            ["rule → offer", "before", "after", "people gained", "people lost", "expected value"],
            [
                [
                    f"{one['rule']} → {one['offer']}",
                    f"{one['before']:,}",
                    f"{one['after']:,}",
                    f"{one['gained']:,}",
                    f"{one['lost']:,}",
                    f"{one['expectedValue']:+,.2f}",
                ]
                for one in report["changes"]
            ],
        ),
        "<h2>People who hear from two rules</h2>",
        _table(
            ["rules", "side", "people"],
            [
                [" and ".join(one["rules"]), side["name"], f"{one['people']:,}"]
                for side in (active, tried)
                for one in side["overlaps"]
            ],
        ),
        "<h2>How far to trust this</h2>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in notes(report)) + "</ul>",
    ]
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        '<link rel=icon href="data:,">'
        f"<title>Backtest: {escape(names[1])}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _period(report: Mapping[str, Any]) -> str:
    return f"{report['since']:%Y-%m-%d %H:%M} to {report['until']:%Y-%m-%d %H:%M} UTC"


def _reasons(active: Mapping[str, Any], tried: Mapping[str, Any]) -> list[str]:
    return sorted(
        {*active["suppressed"], *tried["suppressed"]},
        key=lambda reason: (-tried["suppressed"].get(reason, 0), reason),
    )


def _compared(before: Any, after: Any) -> tuple[str, str, str]:
    """Two figures and their difference; money has cents."""
    if isinstance(before, float):
        return f"{before:,.2f}", f"{after:,.2f}", f"{after - before:+,.2f}"
    return f"{before:,}", f"{after:,}", f"{after - before:+,}"


def _key(colour: str, name: str) -> str:
    return f'<span class=key style="background:{colour}"></span>{escape(name)}'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not cells:
        return "<p class=note>none</p>"
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _bars(title: str, labels: Sequence[str], sides: Sequence[Sequence[int]]) -> str:
    """Two bars for each label, one side above the other."""
    if not labels:
        return "<p class=note>none</p>"
    most = max(1, *(value for side in sides for value in side))
    parts = []
    for number, label in enumerate(labels):
        top = number * _ROW
        parts.append(f'<text x="{_LABEL - 8}" y="{top + 18}" text-anchor="end">{escape(label)}</text>')
        for side, colour in enumerate(_COLOURS):
            value = sides[side][number]
            width = value / most * (_WIDTH - _LABEL - 70)
            y = top + 3 + side * (_BAR + 2)
            parts.append(
                f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}" rx="2"/>'
                f'<text x="{_LABEL + width + 6:.1f}" y="{y + _BAR - 1}">{value:,}</text>'
            )
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {len(labels) * _ROW}">'
        + "".join(parts)
        + "</svg>"
    )
