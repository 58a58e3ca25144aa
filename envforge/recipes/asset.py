"""Files from elsewhere: fetched once, by hash where a source gives one, else recorded."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import platformdirs

from envforge import documents
from envforge.errors import EnvforgeError, UnknownName, UsageError
from envforge.events import Event, OnEvent
from envforge.recipes.document import Asset, Recipe
from envforge.sources.fetch import fetch_first
from envforge.sources.store import default_store, hash_file, mismatch
from envforge.sources.unpinned import Unpinned, fetch_unpinned


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An asset as it is used, as it stands in the run's record."""

    name: str
    path: str
    origin: str
    sha256: str
    recorded: bool = False
    """No source gives the hash: this is the first file that came, and was believed."""


def needed_assets(
    recipe: Recipe, *, dataset: str, preset: str, demo: bool, given: bool
) -> dict[str, Asset]:
    """Choose the assets of a run; ``given``: the user has the dataset already."""
    kinds = ("always", "demo" if demo else "data")
    wanted = {name: asset for name, asset in recipe.assets.items() if asset.needed in kinds}
    chosen = recipe.datasets.get(dataset)
    if chosen and chosen.asset and not demo and not given:
        wanted[chosen.asset] = recipe.assets[chosen.asset]
    named = recipe.presets[preset].asset if preset in recipe.presets else None
    if named is not None:
        wanted[named] = recipe.assets[named]
    return wanted


def fetch_assets(
    wanted: Mapping[str, Asset], brought: Mapping[str, Path], on_event: OnEvent
) -> tuple[Fetched, ...]:
    """Get every asset; UsageError for one that has to be brought, SourceError for one not had."""
    return tuple(_one(name, asset, brought.get(name), on_event) for name, asset in wanted.items())


def refuse_unknown(recipe: Recipe, brought: Mapping[str, Path]) -> None:
    """UnknownName for a file that is brought for nothing."""
    for name in brought:
        if name not in recipe.assets:
            hint = f"{recipe.name} has: {', '.join(recipe.assets) or 'none'}"
            raise UnknownName("asset", name, hint=hint)


def _one(name: str, asset: Asset, brought: Path | None, on_event: OnEvent) -> Fetched:
    if brought is not None:
        return _brought(name, asset, brought)
    if not asset.urls:
        raise UsageError(
            f"{name} has to be brought: {asset.help}",
            because=(f"licence: {asset.licence}", f"source: {asset.source}"),
            hint=f"--asset {name}=FILE",
        )
    store = default_store()
    sha256 = asset.sha256 or recorded(_ledger()).get(asset.urls[0])
    if sha256 is not None:
        path = fetch_first(asset.urls, sha256, asset.file, store, on_event)
        return Fetched(name=name, path=str(path), origin=asset.urls[0], sha256=sha256)
    unpinned = Unpinned(asset.urls, asset.file, asset.size_bytes)
    path, sha256, url = fetch_unpinned(unpinned, store, on_event)
    on_event(Event("warning", f"no source gives the hash of {asset.file}: {sha256} is recorded"))
    _record(asset, sha256)
    return Fetched(name=name, path=str(path), origin=url, sha256=sha256, recorded=True)


def _brought(name: str, asset: Asset, path: Path) -> Fetched:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint=f"--asset {name}=FILE")
    found = hash_file(path)
    if asset.sha256 not in (None, found):
        raise mismatch(asset.file, str(asset.sha256), found, f"brought as {path}")
    path = path.resolve()
    return Fetched(name=name, path=str(path), origin=str(path), sha256=found)


def _ledger() -> Path:
    return platformdirs.user_state_path("envforge") / "assets.json"


def recorded(path: Path) -> dict[str, str]:
    """Read which hash came first under which address; a broken ledger counts as none."""
    try:
        return documents.load_json(path, dict[str, str])
    except EnvforgeError:
        return {}


def _record(asset: Asset, sha256: str) -> None:
    known = {**recorded(_ledger()), asset.urls[0]: sha256}
    documents.write_atomically(_ledger(), documents.to_json(known).encode())


def lay_out(fetched: tuple[Fetched, ...], assets: Mapping[str, Asset]) -> Path:
    """Put the assets under their own names into one folder, as hard links where it can be."""
    key = hashlib.sha256("\n".join(f"{each.name} {each.sha256}" for each in fetched).encode())
    folder = platformdirs.user_cache_path("envforge") / "assets" / key.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for each in fetched:
        target = folder / assets[each.name].file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(each.path, target)
        except OSError:  # another file system
            shutil.copyfile(each.path, target)
    return folder
