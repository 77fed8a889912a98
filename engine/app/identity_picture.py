"""A person's identity graph as a picture: SVG, nothing loaded from elsewhere."""

from __future__ import annotations

from html import escape
from math import cos, pi, sin

from engine.adapters.postgres.graph import Graph, Why

WIDTH, HEIGHT = 960, 640
_RADIUS_X, _RADIUS_Y = 330, 230
_LONGEST = 34
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#666}"
    ".person{fill:#1f6feb}.identity{fill:#fff;stroke:#1f6feb;stroke-width:2}"
    ".merged{fill:#fff4e5;stroke:#d97706;stroke-width:2}.device{fill:#f3f4f6;stroke:#9ca3af}"
    "line{stroke:#9ca3af;stroke-width:1.5}.address{stroke-dasharray:4 4}"
)


def picture(graph: Graph) -> str:
    """The person in the middle, identities around; those that came with another profile are marked, and
    devices, which join nobody, are dashed. Titles say why."""
    nodes: list[tuple[str, str, str, str]] = []
    why_merged = {merge.profile: merge for merge in graph.merges}
    for link in graph.identities:
        merge = why_merged.get(link.profile)
        title = f"linked {link.linked_at:%Y-%m-%d %H:%M:%S} by {_said(link.why)}"
        if merge is not None:
            title += f"; came with another profile, one with this since {merge.at:%Y-%m-%d %H:%M:%S}"
            title += f" by {_said(merge.why)}"
        nodes.append(("merged" if merge else "identity", link.namespace, link.value, title))
    for device in graph.devices:
        nodes.append(("device", device.type or "device", device.id, f"last seen {device.seen_at:%Y-%m-%d}"))
    middle_x, middle_y = WIDTH / 2, HEIGHT / 2
    lines, shapes = [], []
    for number, (kind, above, below, title) in enumerate(nodes):
        angle = 2 * pi * number / len(nodes) - pi / 2
        x, y = middle_x + _RADIUS_X * cos(angle), middle_y + _RADIUS_Y * sin(angle)
        css = ' class="address"' if kind == "device" else ""
        lines.append(f'<line{css} x1="{middle_x:.0f}" y1="{middle_y:.0f}" x2="{x:.0f}" y2="{y:.0f}"/>')
        shapes.append(
            f'<g><title>{escape(title)}</title><rect class="{kind}" x="{x - 120:.0f}" y="{y - 22:.0f}" '
            f'width="240" height="44" rx="8"/><text class="small" x="{x:.0f}" y="{y - 5:.0f}" '
            f'text-anchor="middle">{escape(above)}</text><text x="{x:.0f}" y="{y + 12:.0f}" '
            f'text-anchor="middle">{escape(_short(below))}</text></g>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<style>{_STYLE}</style>{''.join(lines)}"
        f'<circle class="person" cx="{middle_x:.0f}" cy="{middle_y:.0f}" r="16">'
        f"<title>profile {escape(graph.profile)}</title></circle>{''.join(shapes)}</svg>"
    )


def _said(why: Why | None) -> str:
    if why is None:
        return "an event that is not kept any more"
    name = f"{why.type} {why.name}".strip()
    return f"{name} ({why.source}), message {why.message_id}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
