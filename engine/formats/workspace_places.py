"""`geofences:`: places written out, and files of GeoJSON, with what holds for them."""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Set
from itertools import chain
from typing import Any, Final

import msgspec

from engine.domain.places.fence_index import Fence
from engine.domain.places.opening import Opening
from engine.domain.places.packed_fences import Packing, Sort, Tagged, sort_of
from engine.domain.places.progress import Tell, say_nothing
from engine.domain.places.shapes import Beacon, Shape
from engine.formats.fence_file import SUFFIX, read_fences
from engine.formats.fence_rows import identifier
from engine.formats.geojson import NO_RADIUS, NO_WIDTH, GeoFile, Sizes, read_geojson
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode, Scalar
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_opening import Hours, opening, zone_of
from engine.formats.workspace_shapes import SHAPES, radius_in, width_in, written
from engine.formats.workspace_values import Problems, fields, name, names, shown

_SHAPES: Final = (*SHAPES, "file")
_SIZES: Final = ("radius", "width")
_GEOJSON: Final = (".geojson", ".json")
_SUFFIXES: Final = (*_GEOJSON, SUFFIX)

_STANDS_IN: Final = {
    "radius": "a circle's radius stands in it: {circle: {lat: …, lng: …, radius: 60}}",
    "width": "a line's width stands in it: {line: {points: …, width: 12}}",
}

_EVERY: Final = 20_000
_READ: Final = "geofences read"

Place = tuple[str, int]
"""A file and a line."""


class Said(msgspec.Struct, frozen=True):
    """All geofences of a workspace, with the ids by tag. `names` has those of faulty ones, too."""

    fences: Mapping[str, Fence]
    names: Set[str]
    tags: Mapping[str, Set[str]]
    sorts: tuple[Sort, ...]

    def of_tag(self, tag: str) -> Iterator[Sort]:
        """The sorts of the fences with a tag."""
        return (sort for sort in self.sorts if tag in sort.tags)


class _Either(Set[str]):
    """Names in one or the other."""

    def __init__(self, one: Set[str], other: Collection[str]) -> None:
        self._one, self._other = one, other

    def __contains__(self, name: object) -> bool:
        return name in self._one or name in self._other

    def __iter__(self) -> Iterator[str]:
        return chain(self._one, (name for name in self._other if name not in self._one))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Places:
    """The geofences read so far, with where each was said: ids are unique over all files. Those that were
    imported may be very many, so that they are packed."""

    def __init__(
        self, files: Mapping[str, bytes], problems: Problems, timezone: str, tell: Tell = say_nothing
    ) -> None:
        self._fences: dict[str, Fence] = {}
        self._names: set[str] = set()
        self._tags: dict[str, set[str]] = {}
        self._packing = Packing()
        self._imports: list[tuple[int, str]] = []
        self._tell = tell
        self.is_complete = True
        self._files = files
        self._problems = problems
        self._zone = timezone
        self._said: dict[str, Place] = {}

    def add(self, entry: Entry) -> None:
        """One entry of `geofences:`. A faulty one still takes its name and tags."""
        node = entry.node
        known = (*_SHAPES, *_SIZES, "id", "tags", "properties", "open")
        found = fields(node, self._problems, known, expected="fields such as {circle: …}")
        tags = frozenset(names(found["tags"], self._problems, "tags")) if found and "tags" in found else ()
        stated = self._properties(found["properties"]) if found and "properties" in found else {}
        for tag in tags:
            self._tags.setdefault(tag, set())
        if found is None or not isinstance(node, MapNode):
            self._names.add(entry.key.text)
            return
        shapes = [word for word in _SHAPES if word in found]
        if len(shapes) > 1:
            both = " and ".join(f'"{word}"' for word in shapes[:2])
            self._problems.append(node.entries[shapes[1]].key.problem(f"{both} exclude each other"))
        elif not shapes:
            listed = f"{', '.join(_SHAPES[:-1])} or {_SHAPES[-1]}"
            self._problems.append(entry.key.problem(f"a geofence needs one of {listed}"))
        hours = opening(found["open"], self._problems) if "open" in found else None
        if "file" in found:
            self._file(node, found, frozenset(tags), stated, hours)
            return
        for word in ("id", *_SIZES):
            if word in found:
                message = f'"{word}" belongs to a geofence from a file'
                self._problems.append(node.entries[word].key.problem(message, _STANDS_IN.get(word)))
        self._named(entry.key.text, entry.key, tags)
        shape = written(shapes[0], found[shapes[0]], self._problems) if shapes else None
        if shape is not None:
            fence = Fence(entry.key.text, shape, frozenset(tags), stated, self._opening(hours, shape))
            self._fences.setdefault(entry.key.text, fence)

    def read(self) -> Said:
        """All of them, once every entry was added."""
        if not self._imports:
            sorts = {sort_of(fence) for fence in self._fences.values()}
            return Said(
                fences=self._fences,
                names=self._names,
                tags={tag: frozenset(ids) for tag, ids in self._tags.items()},
                sorts=tuple(sorts),
            )
        self._tell(_READ, len(self._packing), len(self._packing))
        first_of_ours = len(self._packing)
        ours = list(self._fences.values())
        for fence in ours:
            self._packing.add(fence)
        packed, doubles = self._packing.packed()
        for double in doubles:
            if double.later < first_of_ours:
                file, line = self._place(double.later)
                first = self._place(double.earlier)
            else:  # one of our own: told where it was imported again
                file, line = self._place(double.earlier)
                first = self._said[double.id]
            self._problems.append(Problem(file, line, 1, _twice(double.id, first)))
        known = {tag for sort in packed.sorts for tag in sort.tags}
        return Said(
            fences=packed,
            names=_Either(self._names, packed),
            tags={
                tag: Tagged(packed, tag) if tag in known else frozenset(ids)
                for tag, ids in self._tags.items()
            },
            sorts=packed.sorts,
        )

    def _place(self, number: int) -> Place:
        """Where an imported fence stands: its file, whose first line is not one's, and its line."""
        start, file = self._imports[bisect_right(self._imports, number, key=lambda one: one[0]) - 1]
        return file, number - start + 2

    def _named(self, fence_id: str, key: Scalar, tags: Any) -> None:
        name(key, self._problems, "a geofence")
        first = self._said.get(fence_id)
        if first is not None:
            self._problems.append(key.problem(_twice(fence_id, first)))
        self._take(fence_id, (key.source.file, key.line), tags)

    def _take(self, fence_id: str, place: Place, tags: Any) -> None:
        self._said.setdefault(fence_id, place)
        self._names.add(fence_id)
        for tag in tags:
            self._tags[tag].add(fence_id)

    def _opening(self, hours: Hours | None, shape: Shape) -> Opening | None:
        """The hours on the clock of the place itself."""
        if hours is None:
            return None
        return Opening(self._zone if isinstance(shape, Beacon) else zone_of(shape), hours)

    def _properties(self, node: AnyNode) -> dict[str, Any]:
        if not isinstance(node, MapNode):
            fields(node, self._problems, (), expected="properties such as {name: Gate Café}")
            return {}
        for word, meant in (("id", "the id above"), ("open", "whether the place is open")):
            if word in node.entries:
                message = f'"geofence.{word}" is {meant}: call the property something else'
                self._problems.append(node.entries[word].key.problem(message))
        return {word: plain(entry.node) for word, entry in node.entries.items()}

    def _file(
        self,
        node: MapNode,
        found: dict[str, AnyNode],
        tags: frozenset[str],
        stated: dict[str, Any],
        hours: Hours | None,
    ) -> None:
        before = len(self._problems)
        path = name(found["file"], self._problems, "the name of a file")
        sizes = Sizes(
            radius_in(found["radius"], self._problems) if "radius" in found else None,
            width_in(found["width"], self._problems) if "width" in found else None,
        )
        id_path = (
            name(found["id"], self._problems, "a path such as properties.name") if "id" in found else None
        )
        is_imported = path is not None and path.endswith(SUFFIX)
        if is_imported:
            for word in ("id", *_SIZES):
                if word in found:
                    message = f'"{word}" was said when {path} was imported'
                    self._problems.append(node.entries[word].key.problem(message))
        elif "id" not in found:
            hint = "add id: properties.name, or another that differs from feature to feature"
            self._problems.append(node.problem('"id" is missing', hint))
        elif id_path is not None and id_path != "id" and not id_path.startswith("properties."):
            hint = f"did you mean properties.{id_path.rpartition('.')[2]}?"
            message = f'the path begins with properties., or is "id", found {shown(found["id"])}'
            self._problems.append(found["id"].problem(message, hint))
        located = self._find(found["file"], path) if path is not None else None
        if located is None or len(self._problems) > before:
            self.is_complete = False
            return
        target, data = located
        if is_imported:
            self._imported(target, data, tags, stated, hours)
            return
        read = read_geojson(data, target, sizes)
        self._problems.extend(map(_with_hint, read.problems))
        if any(problem.severity == "error" for problem in read.problems):
            self.is_complete = False
        self._features(read, target, found["id"], id_path or "id", tags, stated, hours)

    def _imported(
        self, target: str, data: bytes, tags: frozenset[str], stated: dict[str, Any], hours: Hours | None
    ) -> None:
        """Places that were examined when they were imported; `tags` are added to their own."""
        read = read_fences(data, target)
        if isinstance(read, Problem):
            self._problems.append(read)
            self.is_complete = False
            return
        packing, before = self._packing, len(self._packing)
        self._imports.append((before, target))
        for tag in tags:
            self._tags.setdefault(tag, set())
        seen: set[frozenset[str]] = set()
        for fence in read:
            if fence.tags not in seen:
                seen.add(fence.tags)
                for tag in fence.tags:
                    self._tags.setdefault(tag, set())
            if tags or stated or hours is not None:
                properties = {**fence.properties, **stated} if stated else fence.properties
                opening = self._opening(hours, fence.shape)
                fence = Fence(fence.id, fence.shape, fence.tags | tags, properties, opening)
            packing.add(fence)
            if len(packing) % _EVERY == 0:
                self._tell(_READ, len(packing), len(packing))

    def _find(self, node: AnyNode, path: str) -> tuple[str, bytes] | None:
        """The file's name in the workspace, and its content."""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(node.source.file), path))
        if target.startswith(("/", "..")):
            self._problems.append(node.problem("a file must be within the workspace's folder"))
            return None
        if not target.endswith(_SUFFIXES):
            hint = f"the name ends with {', '.join(_GEOJSON)}, or {SUFFIX} for imported ones"
            self._problems.append(node.problem("only GeoJSON files hold geofences", hint))
            return None
        data = self._files.get(target)
        if data is None:
            others = frozenset(file for file in self._files if file.endswith(_SUFFIXES))
            self._problems.append(node.problem(f'there is no file "{target}"', did_you_mean(target, others)))
            return None
        return target, data

    def _features(
        self,
        read: GeoFile,
        target: str,
        at: AnyNode,
        id_path: str,
        tags: frozenset[str],
        stated: dict[str, Any],
        hours: Hours | None,
    ) -> None:
        ids = [identifier(feature, id_path) for feature in read.features]
        if None in ids:
            self.is_complete = False
        if ids and not any(ids):
            present = frozenset(f"properties.{word}" for f in read.features for word in f.properties)
            message = f'no feature of "{target}" has "{id_path}"'
            self._problems.append(at.problem(message, did_you_mean(id_path, present)))
            return
        for feature, fence_id in zip(read.features, ids, strict=True):
            where = f"feature {feature.index + 1}"
            if fence_id is None:
                message = f'{where}: no text or number at "{id_path}"'
                self._problems.append(Problem(target, feature.line, feature.column, message))
                continue
            first = self._said.get(fence_id)
            if first is not None:
                message = f"{where}: {_twice(fence_id, first)}"
                self._problems.append(Problem(target, feature.line, feature.column, message))
            self._take(fence_id, (target, feature.line), tags)
            properties = {**feature.properties, **stated}
            at_hours = self._opening(hours, feature.shape)
            self._fences[fence_id] = Fence(fence_id, feature.shape, tags, properties, at_hours)


def plain(node: AnyNode) -> Any:
    """A node as an ordinary value."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {word: plain(entry.node) for word, entry in node.entries.items()}


def _twice(fence_id: str, first: Place) -> str:
    return f'the geofence "{fence_id}" stands twice, first in {first[0]} line {first[1]}'


def _with_hint(problem: Problem) -> Problem:
    for message, word in ((NO_RADIUS, "radius: 50"), (NO_WIDTH, "width: 12")):
        if problem.message.endswith(message):
            return msgspec.structs.replace(problem, suggestion=f"add {word} beside file:, in metres")
    return problem
