"""Upstream's own configuration values, read from its files. Nothing of upstream is run.

A recipe that overrides a value states the old one. Staging compares, because an option that was
renamed or a default that moved would else be overridden with nothing to show for it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from envforge.errors import PatchError
from envforge.recipes.document import Override

_ABSENT = object()
_TOO_DEEP = (RecursionError, MemoryError)
"""What Python's own parser and PyYAML raise for a thousand brackets."""


def check_old_values(overrides: tuple[Override, ...], checkout: Path) -> None:
    """Compare every stated old value with upstream's; PatchError with all that differ."""
    faults = []
    for override in overrides:
        try:
            found = upstream_value(override, checkout)
        except LookupError as error:
            faults.append(f"{_where(override)}: {error}")
            continue
        if not same(found, override.upstream):
            stated = f"{override.upstream!r} was expected, {found!r} stands there"
            faults.append(f"{_where(override)}: {stated}")
    if faults:
        raise PatchError(
            "upstream's configuration is not the one this recipe overrides",
            because=tuple(faults),
            hint="another commit, or a changed copy: see the variant's commit in the recipe",
        )


def _where(override: Override) -> str:
    return f"{override.file}: {override.key}"


def upstream_value(override: Override, checkout: Path) -> Any:
    """Read the value that upstream has; LookupError in words where there is none."""
    try:
        return _READERS[override.form](override, checkout)
    except _TOO_DEEP as error:
        raise LookupError("is nested deeper than can be read") from error


def same(found: Any, stated: Any) -> bool:
    """Compare as upstream would: ``"0.0002"`` is 0.0002, a list is a tuple, True is not 1."""
    found, stated = _plain(found), _plain(stated)
    return type(found) is type(stated) and bool(found == stated)


def _plain(value: Any) -> Any:
    """Read a literal out of text; a number with a point is a float, a sequence a list."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, *_TOO_DEEP):
            return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _argparse_value(override: Override, checkout: Path) -> Any:
    """Find the default of an option; a later ``set_defaults`` in the same file wins, as there."""
    found = _ABSENT
    for call in _calls(checkout / override.file):
        named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        if _name(call) == "add_argument" and override.key in _literals(call.args):
            found = _default(named)
        elif _name(call) == "set_defaults" and override.key.lstrip("-") in named:
            found = _literal(named[override.key.lstrip("-")])
    if found is _ABSENT:
        raise LookupError("upstream has no such option there")
    return found


def _default(named: dict[str, ast.expr]) -> Any:
    if "default" in named:
        return _literal(named["default"])
    return False if _literal(named.get("action")) == "store_true" else None


def _calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Call):
            yield node


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _literals(nodes: list[ast.expr]) -> list[Any]:
    return [_literal(node) for node in nodes]


def _literal(node: ast.expr | None) -> Any:
    """Give a literal's value, and any other expression's text: ``float('inf')``."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except OSError as error:
        raise LookupError(f"there is no such file ({error.strerror})") from error
    except (SyntaxError, ValueError) as error:
        raise LookupError(f"cannot be parsed: {error}") from error


def _yacs_value(override: Override, checkout: Path) -> Any:
    """The YAML file's, else the assignment ``_C.A.B = ...`` of the defaults."""
    node = _yaml_node(override, checkout)
    if node is not None:
        return _node_value(node)
    if override.otherwise is None:
        raise LookupError("upstream has no such key there")
    wanted = f"_C.{override.key}"
    for each in ast.walk(_parsed(checkout / override.otherwise)):
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == wanted:
            return _literal(each.value)
    raise LookupError(f"upstream has no such key, nor has {override.otherwise}")


def _yaml_value(override: Override, checkout: Path) -> Any:
    node = _yaml_node(override, checkout)
    if node is None:
        raise LookupError("upstream has no such key there")
    return _node_value(node)


def _node_value(node: yaml.Node) -> Any:
    """As upstream's own reader has it: ``0.01`` is a number here."""
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # "2024-13-45" has the form of a date
        raise LookupError(f"cannot be parsed: {error}") from error


def _yaml_node(override: Override, checkout: Path) -> yaml.Node | None:
    path = checkout / override.file
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise LookupError(f"there is no such file ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LookupError(f"cannot be parsed: {error}") from error
    for key in override.key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node


def edit_yaml(override: Override, value: str, checkout: Path) -> None:
    """Write ``value`` in the place of the old one; everything else of the file stays as it is."""
    node = _yaml_node(override, checkout)
    if node is None:
        raise PatchError(f"{_where(override)}: upstream has no such key there")
    path = checkout / override.file
    text = path.read_text(encoding="utf-8")
    start, end = node.start_mark.index, node.end_mark.index
    path.write_text(text[:start] + value + text[end:], encoding="utf-8")


_READERS: dict[str, Callable[[Override, Path], Any]] = {
    "argparse": _argparse_value,
    "yacs": _yacs_value,
    "yaml": _yaml_value,
}
