"""Strict YAML and JSON <-> typed records: all faults of a document at once, with file and path.

YAML reads ``1.10`` as 1.1 and ``no`` as False, so the reader here resolves no scalar but
integers, ``true``/``false`` and ``null``: everything else stays the string that was typed, and a
version field (a string) can never lose a zero. Duplicate keys are faults.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from envforge.errors import DocumentError

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")


def _loader() -> type[yaml.Loader]:
    """Build the strict loader; PyYAML is imported only where YAML is really read."""
    import yaml  # noqa: PLC0415

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Strict(base):  # type: ignore[misc]
        pass

    Strict.yaml_implicit_resolvers = {}
    plain = {
        "tag:yaml.org,2002:bool": (r"^(?:true|false)$", "tf"),
        "tag:yaml.org,2002:int": (r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
        "tag:yaml.org,2002:null": (r"^(?:null|~)$", "n~"),
    }
    for tag, (pattern, first) in plain.items():
        Strict.add_implicit_resolver(tag, re.compile(pattern), list(first))

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        pairs = loader.construct_pairs(node, deep=True)
        fault = _fault_of_keys([key for key, _ in pairs])
        if fault:
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        return dict(pairs)

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    return Strict


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression of a document or an option.

    ValueError says what is wrong with it, also where Python only warns that a later version will
    read it otherwise (``[[a]``).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return re.compile(text)
        except (re.error, FutureWarning, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error


def _fault_of_keys(keys: list[Any]) -> str | None:
    if any(isinstance(key, (dict, list)) for key in keys):
        return "a key is a mapping or a list"
    doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
    return f"duplicate key: {', '.join(doubled)}" if doubled else None


def parse_yaml(text: str, name: str) -> Any:
    """Read one YAML document; DocumentError with line and column where it is malformed."""
    import yaml  # noqa: PLC0415

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 -- derived from SafeLoader above
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError(f"{name} is not valid YAML", because=(str(error),)) from error


def convert(document: Any, kind: type[T], name: str) -> T:
    """Turn plain data into ``kind``; DocumentError naming the path of the fault."""
    try:
        return msgspec.convert(document, kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise DocumentError(
            f"{name} is not as it must be", because=(f"{name}: {error}",)
        ) from error


def convert_rows(document: Any, key: str, kind: type[T], name: str) -> tuple[T, ...]:
    """Turn ``{key: [rows]}`` into records, collecting the faults of every row."""
    if not isinstance(document, dict) or set(document) != {key}:
        raise DocumentError(f"{name} must hold exactly one key: {key}")
    rows, faults = [], []
    for index, row in enumerate(_as_list(document[key], name, key)):
        try:
            rows.append(msgspec.convert(row, kind, strict=True))
        except (msgspec.ValidationError, ValueError) as error:
            faults.append(f"{name}: {key}[{index}]: {error}")
    if faults:
        raise DocumentError(f"{name} has {len(faults)} faulty rows", because=tuple(faults))
    return tuple(rows)


def convert_named(document: Any, key: str, kind: type[T], name: str) -> dict[str, T]:
    """Turn ``{key: {name: row}}`` into records by name, collecting the faults of every row."""
    if not isinstance(document, dict) or set(document) != {key}:
        raise DocumentError(f"{name} must hold exactly one key: {key}")
    if not isinstance(document[key], dict):
        raise DocumentError(f"{name}: {key} must be a mapping")
    rows, faults = {}, []
    for each, row in document[key].items():
        try:
            rows[str(each)] = msgspec.convert(row, kind, strict=True)
        except (msgspec.ValidationError, ValueError) as error:
            faults.append(f"{name}: {key}.{each}: {error}")
    if faults:
        raise DocumentError(f"{name} is not as it must be", because=tuple(faults))
    return rows


def _as_list(value: Any, name: str, key: str) -> Iterable[Any]:
    if not isinstance(value, list):
        raise DocumentError(f"{name}: {key} must be a list")
    return value


def load_yaml(path: Path, name: str = "") -> Any:
    """Read a YAML file; errors call it ``name``, or by its path."""
    return parse_yaml(_read(path), name or str(path))


def load_json(path: Path, kind: type[T]) -> T:
    """Read and check a whole JSON file as ``kind``."""
    try:
        return msgspec.json.decode(_read(path), type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise DocumentError(f"{path} is not as it must be", because=(str(error),)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot read {path}", because=(str(error),)) from error


def to_json(value: Any) -> str:
    r"""Canonical JSON: sorted keys, two spaces, final newline. The same value, the same bytes.

    A byte of a name that is no UTF-8 stands in it as ``\xff``: JSON has no other way to say it.
    """
    try:
        encoded = msgspec.json.encode(value, order="sorted")
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_sayable(msgspec.to_builtins(value)), order="sorted")
    return msgspec.json.format(encoded, indent=2).decode() + "\n"


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_sayable(key): _sayable(each) for key, each in value.items()}
    return [_sayable(each) for each in value] if isinstance(value, (list, tuple)) else value


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader, or a kill at any moment, finds the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(staging, 0o644)  # noqa: PTH101 -- mkstemp gives 0600; these files are to be read
        os.replace(staging, path)  # noqa: PTH105
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise
