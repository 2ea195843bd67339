"""A safe subset of YAML: plain data with line numbers, bounded, no tags, no aliases, no duplicate keys.

Scalars follow YAML 1.2 (so `no` is a string and `1e-3` a number). Independent of recipes.
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
    lines: dict[Keys, int] = {}
    try:
        _refuse_traps(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return Parsed(None if root is None else _value(root, (), lines), lines)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UsageError(" ".join(str(error).split())) from None


def dump(value: Any) -> str:
    """Plain data as YAML that `parse`, and any YAML reader, reads back as the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would read as another type."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # other line breaks than \n get lost between PyYAML's single quotes
        return self.represent_scalar("tag:yaml.org,2002:str", data, '"' if _RARE_BREAKS.search(data) else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _refuse_traps(text: str) -> None:
    """Checks the parser's events before anything is built, so that deep or repeated nesting costs no memory."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"line {_line(event)}: aliases (*{event.anchor}) are not accepted; write the value out")
        if (tag := getattr(event, "tag", None)) not in (None, "!"):
            raise UsageError(f"line {_line(event)}: tags ({tag}) are not accepted, only plain values")
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise UsageError(f"line {_line(event)}: a second document begins; one is expected")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UsageError(f"line {_line(event)}: nested more than {MAX_DEPTH} deep")


def _line(part: Any) -> int:
    """Of an event or a node, from 1."""
    return int(part.start_mark.line) + 1


def _value(node: Any, path: Keys, lines: dict[Keys, int]) -> Any:
    """The node's value; records the lines of everything in it."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        lines |= {(*path, place): _line(item) for place, item in enumerate(node.value)}
        return [_value(item, (*path, place), lines) for place, item in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"line {_line(key)}: a key must be a word")
        if key.value in found:
            raise UsageError(f"line {_line(key)}: the key '{key.value}' occurs twice in one mapping")
        lines[(*path, key.value)] = _line(key)
        found[key.value] = _value(value, (*path, key.value), lines)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text, line = node.value, _line(node)
    if node.style is not None:  # quoted, or a block of text
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
