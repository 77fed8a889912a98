"""The two spellings of XDM field names: `eventType`, `_id`, `_schema.latitude`, as Adobe Experience
Platform takes them, and `xdm:eventType`, `@id`, `schema:latitude`, as the schemas and examples of the
public repository have them (https://github.com/adobe/xdm, NAMESPACES.md). Records are read into the
plain one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

OWN: Final = "_viewfinder"
"""Where a record has what XDM has no field for; what is below is never respelt."""

_MAPS: Final = {"identityMap": 1, "segmentMembership": 2, "idSpecific": 2, "identityPrivacyInfo": 2}
"""Fields whose keys, so many levels deep, are values of people's data and no names."""
_CHANNEL: Final = "https://ns.adobe.com/xdm/channels/"
_CHANNELS: Final = "_channels"


def is_prefixed(record: Mapping[str, Any]) -> bool:
    """Whether a record has the repository's spelling."""
    return any(key.startswith(("xdm:", "@id", "viewfinder:")) for key in record)


def plain(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A prefixed record in the plain spelling, and the keys that `prefixed` could not guess, by where
    they are: `/xdm/lines/0/_id` and how it was spelt."""
    odd: dict[str, str] = {}
    found: dict[str, Any] = _plain(record, "", 0, odd)
    return found, odd


def prefixed(record: Mapping[str, Any], odd: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A plain record in the repository's spelling."""
    found: dict[str, Any] = _prefixed(record, "", 0, odd or {})
    return found


def _plain(node: Any, path: str, map_levels: int, odd: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_plain(item, f"{path}/{index}", 0, odd) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        if map_levels:
            found[key] = _plain(value, f"{path}/{key}", map_levels - 1, odd)
            continue
        outer, name = _split(key)
        if outer is None:
            if name in found:
                name = key
            below = f"{path}/{name}"
            if key == "viewfinder:" + OWN:
                found[OWN] = value
                continue
            found[name] = _plain(value, below, _MAPS.get(name, 0), odd)
            if _prefix(name, found[name]) != key:
                odd[below] = key
            continue
        group = found.setdefault(outer, {})
        if not isinstance(group, dict) or name in group:
            found[key] = _plain(value, f"{path}/{key}", 0, odd)
            continue
        group[name] = _plain(value, f"{path}/{outer}/{name}", _MAPS.get(name, 0), odd)
    return found


def _split(key: str) -> tuple[str | None, str]:
    """The object that a key belongs into, where it has a namespace of its own, and its name there."""
    if key.startswith("xdm:"):
        return None, key[4:]
    if key.startswith("@"):
        return None, "_" + key[1:]
    if key == "viewfinder:" + OWN:
        return None, OWN
    if key.startswith(_CHANNEL) and "/" not in key[len(_CHANNEL) :]:
        return _CHANNELS, key[len(_CHANNEL) :]
    namespace, colon, name = key.partition(":")
    if colon and namespace.isalnum() and name and ":" not in name and "/" not in name:
        return "_" + namespace, name
    return None, key


def _prefixed(node: Any, path: str, map_levels: int, odd: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_prefixed(item, f"{path}/{index}", 0, odd) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        below = f"{path}/{key}"
        if map_levels:
            found[key] = _prefixed(value, below, map_levels - 1, odd)
        elif key == OWN:
            found["viewfinder:" + OWN] = value
        elif below in odd:
            found[odd[below]] = _prefixed(value, below, _MAPS.get(key, 0), odd)
        elif _is_group(key, value):
            start = _CHANNEL if key == _CHANNELS else key[1:] + ":"
            for name, part in value.items():
                found[start + name] = _prefixed(part, f"{below}/{name}", _MAPS.get(name, 0), odd)
        else:
            found[_prefix(key, value)] = _prefixed(value, below, _MAPS.get(key, 0), odd)
    return found


def _is_group(key: str, value: Any) -> bool:
    """Whether a plain key is a namespace, and its members the fields."""
    return (
        key.startswith("_")
        and key[1:].isalnum()
        and isinstance(value, Mapping)
        and bool(value)
        and not any(":" in name or "/" in name for name in value)
    )


def _prefix(name: str, value: Any) -> str:
    if "://" in name or ":" in name:
        return name
    if name.startswith("_") and not isinstance(value, Mapping):
        return "@" + name[1:]
    return "xdm:" + name
