"""What a recipe is trained with, brought into a mirror: commits, packages, assets by hash."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from envforge.events import Event, OnEvent
from envforge.mirror.plan import Created, alone, faults_of, find_manifest
from envforge.recipes import LoadedRecipe, load_recipe
from envforge.recipes.packages import load_pins, wheel_of
from envforge.sources.fetch import fetch_first, fetch_wheel
from envforge.sources.git import GitTree, fetch_without_submodules
from envforge.sources.mirror import Held, HeldTree, Manifest, Mirror
from envforge.sources.store import Store, default_store


def create_recipe(root: Path, name: str, on_event: OnEvent) -> Created:
    """Bring what a recipe pins into the mirror at ``root``, which is made where there is none.

    All variants, and the packages of every interpreter they are pinned for. What has no hash
    cannot be held and is named in the manifest. UnknownName, DocumentError, SourceError.
    """
    loaded, mirror, store = load_recipe(name), Mirror(root), default_store()
    recipe = loaded.recipe
    with alone(mirror, on_event):
        inputs = {**_packages(loaded, mirror, store, on_event)}
        assets, left_out = _assets(loaded, mirror, store, on_event)
        manifest = Manifest(
            kind="recipe",
            name=recipe.name,
            title=f"recipe {recipe.name}",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            envforge=version("envforge"),
            inputs={**inputs, **assets},
            trees=_trees(loaded, mirror, store, on_event),
            left_out=left_out,
        )
        found = find_manifest(mirror, "recipe", recipe.name, on_event)
        if found is not None and _is_same(found, manifest) and not faults_of(mirror, found):
            return Created(found, fresh=False)
        return Created(mirror.write(manifest), fresh=True)


def _is_same(found: Manifest, manifest: Manifest) -> bool:
    return (set(found.files()), found.left_out) == (set(manifest.files()), manifest.left_out)


def _packages(
    loaded: LoadedRecipe, mirror: Mirror, store: Store, on_event: OnEvent
) -> dict[str, Held]:
    files = {each.packages for each in loaded.recipe.variants.values() if each.packages}
    rows = [
        row
        for file in sorted(files)
        for pins in load_pins(loaded.shared / file)
        for row in pins.rows
    ]
    wheels = {row.file.sha256: wheel_of(row) for row in rows}.values()
    origin = "the package index, by pip"
    return {
        f"packages/{wheel.name}": mirror.put(fetch_wheel(wheel, store, on_event), origin)
        for wheel in wheels
    }


def _assets(
    loaded: LoadedRecipe, mirror: Mirror, store: Store, on_event: OnEvent
) -> tuple[dict[str, Held], tuple[str, ...]]:
    """Take in what has an address and a hash; the rest is named with its reason."""
    held: dict[str, Held] = {}
    left_out = []
    for name, asset in loaded.recipe.assets.items():
        if not asset.urls or asset.sha256 is None:
            reason = "no source gives its hash" if asset.urls else "it has to be brought"
            left_out.append(f"asset {name}: {reason}")
            on_event(Event("warning", left_out[-1]))
            continue
        path = fetch_first(asset.urls, asset.sha256, asset.file, store, on_event)
        held[f"assets/{asset.file}"] = mirror.put(path, asset.urls[0])
    return held, tuple(left_out)


def _trees(
    loaded: LoadedRecipe, mirror: Mirror, store: Store, on_event: OnEvent
) -> dict[str, HeldTree]:
    upstream = loaded.recipe.upstream
    if upstream is None:
        return {}
    commits = dict.fromkeys(each.commit for each in loaded.recipe.variants.values())
    found = {}
    for commit in commits:
        tree = fetch_without_submodules(GitTree((upstream.url,), commit), store, on_event)
        held = mirror.put(tree.archive, upstream.url)
        found[commit] = HeldTree(file=held, record=tree.record)
    return found
