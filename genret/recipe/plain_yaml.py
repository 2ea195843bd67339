"""YAML without its traps: plain data with line numbers, bounded, no tags, no aliases, no duplicate keys.

Scalars follow YAML 1.2 (so `no` is a word and `1e-3` a number). It knows nothing of recipes.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import yaml

from genret.errors import UsageError

MAX_CHARACTERS = 200_000
MAX_DEPTH = 30

Keys = tuple[str | int, ...]

_RARE_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_NULL = re.compile(r"^(?:null|Null|NULL|~|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")


class Parsed(NamedTuple):
    value: Any
    lines: dict[Keys, int]
    """The line (from 1) of every key path."""


def parse(text: str) -> Parsed:
    """One YAML document → dicts, lists, strings, numbers, booleans and None; `UsageError` for anything else."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"too long: {len(text)} characters, at most {MAX_CHARACTERS} are read")
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(" ".join(str(error).split())) from None
    return Parsed(builder.value, builder.lines)


def dump(value: Any) -> str:
    """Plain data as YAML that `parse`, and any YAML reader, reads as the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would take for something else."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # other line breaks than \n get lost between PyYAML's single quotes
        return self.represent_scalar("tag:yaml.org,2002:str", data, '"' if _RARE_BREAKS.search(data) else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


class _Open(NamedTuple):
    """A list or mapping that is not closed yet."""

    container: Any
    keys: list[str]
    """Of a mapping: the key whose value comes next, if any."""


class _Builder:
    """Builds from parser events with a stack of its own: neither depth nor repetition can exhaust memory."""

    def __init__(self) -> None:
        self.value: Any = None
        self.lines: dict[Keys, int] = {}
        self._stack: list[_Open] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"line {line}: aliases (*{event.anchor}) are not accepted; write the value out")
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise UsageError(f"line {line}: a second document begins; one is expected")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag not in (None, "!"):
            raise UsageError(f"line {line}: tags ({event.tag}) are not accepted, only plain values")
        if isinstance(event, yaml.ScalarEvent):
            self._put(_scalar(event, line), line, event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open({}, line, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open([], line, event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()
            if self._stack and self._stack[-1].keys:
                self._stack[-1].keys.pop()

    def _open(self, container: Any, line: int, event: yaml.Event) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise UsageError(f"line {line}: nested more than {MAX_DEPTH} deep")
        self._put(container, line, event)
        self._stack.append(_Open(container, []))

    def _put(self, value: Any, line: int, event: yaml.Event) -> None:
        if not self._stack:
            self.value = value
            return
        top = self._stack[-1]
        if isinstance(top.container, list):
            top.container.append(value)
            self.lines[self._path(len(top.container) - 1)] = line
        elif not top.keys:
            if not isinstance(event, yaml.ScalarEvent):
                raise UsageError(f"line {line}: a key must be a word")
            if event.value in top.container:
                raise UsageError(f"line {line}: the key '{event.value}' occurs twice in one mapping")
            top.container[event.value] = None
            self.lines[self._path(event.value)] = line
            top.keys.append(event.value)
        else:
            top.container[top.keys[-1]] = value
            if not isinstance(value, dict | list):
                top.keys.pop()

    def _path(self, last: str | int) -> Keys:
        path: list[str | int] = []
        for outer in self._stack[:-1]:
            path.append(outer.keys[-1] if outer.keys else len(outer.container) - 1)
        return (*path, last)


def _scalar(event: yaml.ScalarEvent, line: int) -> Any:
    text = event.value
    if not event.implicit[0]:  # quoted, or a block of text
        return text
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        if len(text) > 40:
            raise UsageError(f"line {line}: the number {text[:12]}... is too large")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise UsageError(f"line {line}: the number {text[:12]} is too large")
        return number
    return text
