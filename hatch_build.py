"""Put the compiled database into the wheel, in the place of its YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledDatabase(BuildHookInterface):
    """Add ``database-<hash of the data and its reader>.msgpack``."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the data of the tree that is built; an editable one compiles on first use."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory(prefix="envforge-")
        path = self._compile(Path(self._folder.name))
        build_data["force_include"][str(path)] = f"envforge/capability/data/{path.name}"

    def _compile(self, folder: Path) -> Path:
        sys.path.insert(0, self.root)
        try:
            import msgspec  # noqa: PLC0415 -- only where something is compiled

            from envforge.capability import load, tables  # noqa: PLC0415
        finally:
            sys.path.remove(self.root)
        path = folder / load.compiled_name(load.content_hash())
        path.write_bytes(msgspec.msgpack.encode(tables.compile_yaml()))
        return path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled once it is in the wheel."""
        if version != "editable":
            self._folder.cleanup()
