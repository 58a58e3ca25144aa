"""Every fault of a well-formed recipe's sense: patterns, placeholders, names, places, bounds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from envforge.documents import compile_pattern
from envforge.errors import EnvforgeError
from envforge.recipes.document import Log, Recipe, Setting, Variant, Words
from envforge.recipes.memory import parse_memory_mib
from envforge.recipes.setting import PLACES, RESERVED, WIDE, placeholders, read_setting
from envforge.recipes.variant import choose
from envforge.values import VersionRange

_NAME = re.compile(r"[a-z][a-z0-9-]*\Z")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]*\Z")
_MOST_OF_A_CARD = 0.9
"""What a tier may take: driver, context and display need the rest (3.6 GiB of 4)."""

_GROUPS: dict[str, tuple[set[str], set[str]]] = {
    "progress": (set(), {"step", "total", "seconds", "losses", "epoch", "memory"}),
    "loss": ({"name", "value"}, {"average"}),
    "epoch_size": ({"items"}, set()),
    "epoch_end": ({"epoch"}, {"epochs"}),
    "check": ({"name", "outcome"}, {"words"}),
    "checkpoint": (set(), {"path", "number"}),
    "resumed": (set(), {"step", "path"}),
    "stopped": (set(), {"step"}),
}
"""Each pattern's groups: those it must have, those it may have."""


def faults_of_sense(recipe: Recipe, folder: Path, shared: Path) -> Iterator[str]:
    """Yield what a well-formed recipe still gets wrong; ``shared`` is where its files lie."""
    if not _NAME.match(recipe.name) or recipe.name != folder.resolve().name:
        yield f"name: must be the folder's name in small letters, got {recipe.name!r}"
    yield from _faults_of_places(recipe, shared)
    yield from _faults_of_upstream(recipe, shared)
    for name in recipe.variants or ("",):
        yield from _faults_of_variant(recipe, name)
    yield from _faults_of_parameters(recipe)
    yield from _faults_of_programs(recipe)
    yield from _faults_of_memory(recipe)
    yield from _faults_of_boxes(recipe)
    for name in ("shm_size_mib", "stop_wait_s", "open_files"):
        if getattr(recipe, name) < 1:
            yield f"{name}: must be at least 1"


def _faults_of_variant(recipe: Recipe, name: str) -> Iterator[str]:
    """Judge the recipe as this variant makes it; each must be able to train alone."""
    dot = f"variants.{name}." if name else ""
    whole = choose(recipe, name)
    yield from _faults_of_torch(f"{dot}torch", whole.torch)
    if whole.log is None:
        yield f"{dot}log: is missing"
    else:
        yield from _faults_of_log(f"{dot}log", whole.log)
    if whole.success is None:
        yield f"{dot}success: is missing"
    elif not any(msgspec.structs.astuple(whole.success)):
        yield (
            f"{dot}success: must name a line, a result or a file,"
            " else nothing says what was reached"
        )
    elif whole.success.line is not None:
        yield from _faults_of_pattern(f"{dot}success.line", whole.success.line, set(), None)
    if not whole.command:
        yield f"{dot}command: is empty"
    known = {*PLACES, *recipe.parameters, *WIDE}
    yield from _faults_of_words(f"{dot}command", whole.command, known)
    if name:
        if (python := recipe.variants[name].python) is not None:
            yield from _faults_of_torch(f"{dot}python", python)
        yield from _faults_of_overrides(f"{dot}overrides", recipe.variants[name], recipe)
        for device, words in recipe.variants[name].on_device.items():
            yield from _faults_of_words(f"{dot}on_device.{device}", words, known)


def _faults_of_overrides(path: str, variant: Variant, recipe: Recipe) -> Iterator[str]:
    for index, override in enumerate(variant.overrides):
        yield from _faults_of_words(f"{path}[{index}].value", (override.value,), recipe.parameters)
        yield from _faults_of_below(f"{path}[{index}].file", (override.file,))
        if override.form == "argparse" and not override.key.startswith("-"):
            yield f"{path}[{index}].key: {override.key!r} is no option"
    if any(each.form != "yaml" for each in variant.overrides) and "{overrides}" not in (
        variant.command or recipe.command
    ):
        yield f"{path}: the command has no place for {{overrides}}"


def _faults_of_torch(path: str, text: str) -> Iterator[str]:
    try:
        if VersionRange.parse(text).upper is None:
            yield f"{path}: {text!r} has no upper bound"
    except ValueError as error:
        yield f"{path}: {error}"


def _faults_of_places(recipe: Recipe, shared: Path) -> Iterator[str]:
    result = recipe.success.result if recipe.success else None
    yield from _faults_of_below("files", (recipe.files,))
    yield from _faults_of_below("checkpoints", (recipe.checkpoints,))
    yield from _faults_of_below("show", recipe.show)
    yield from _faults_of_below("success.result.file", (result.file,) if result else ())
    yield from _faults_of_below("links", recipe.links)
    yield from _faults_of_below("takes_from", recipe.takes_from)
    for name, asset in recipe.assets.items():
        yield from _faults_of_below(f"assets.{name}.file", (asset.file,))
    if not os.path.isdir(shared / recipe.files):  # noqa: PTH112 -- Path.is_dir raises if too long
        yield f"files: there is no folder {recipe.files!r} beside the document"


def _faults_of_boxes(recipe: Recipe) -> Iterator[str]:
    boxes, samples = recipe.boxes, recipe.samples or ""
    if boxes is None:
        return
    yield from _faults_of_below("boxes.file", (boxes.file,))
    if not recipe.samples or boxes.file.count("*") != samples.count("*") or "**" in samples:
        yield f"boxes.file: its stars must be those of samples, {samples!r}"
    yield from _faults_of_pattern("boxes.line", boxes.line, {"points"}, {"words", "score"})


def _faults_of_below(path: str, places: Iterable[str]) -> Iterator[str]:
    for place in places:
        if not place or place.startswith("/") or ".." in PurePosixPath(place).parts:
            yield f"{path}: {place!r} must be a path below its folder"


def _faults_of_upstream(recipe: Recipe, shared: Path) -> Iterator[str]:
    if recipe.variants and recipe.upstream is None:
        yield "upstream: is missing, and there are variants of it"
    if recipe.upstream and not recipe.variants:
        yield "variants: there is none of the upstream"
    files = {"upstream.series": recipe.upstream.series if recipe.upstream else None}
    files |= {f"variants.{name}.packages": each.packages for name, each in recipe.variants.items()}
    for path, named in files.items():
        if named and not os.path.isfile(shared / named):  # noqa: PTH113 -- as above
            yield f"{path}: there is no file {named!r} beside the document"
        yield from _faults_of_below(path, (named,) if named else ())


def _faults_of_log(path: str, log: Log) -> Iterator[str]:
    for name, (must, may) in _GROUPS.items():
        pattern = getattr(log, name)
        if pattern is not None:
            yield from _faults_of_pattern(f"{path}.{name}", pattern, must, may)
    if "(?P<epoch>" in log.progress and log.epoch_size is None:
        yield f"{path}.epoch_size: is missing, and progress counts within an epoch"


def _faults_of_pattern(
    path: str, pattern: str, must: set[str], may: set[str] | None
) -> Iterator[str]:
    try:
        compiled = compile_pattern(pattern)
    except ValueError as error:
        yield f"{path}: not a regular expression: {error}"
        return
    if compiled.search(""):
        yield f"{path}: matches an empty line"
    groups = set(compiled.groupindex)
    if missing := must - groups:
        yield f"{path}: has no group {', '.join(sorted(missing))}"
    if may is not None and (unknown := groups - must - may):
        yield f"{path}: has a group nobody reads: {', '.join(sorted(unknown))}"


def _faults_of_parameters(recipe: Recipe) -> Iterator[str]:
    used = set(_used(recipe))
    for name, parameter in recipe.parameters.items():
        path = f"parameters.{name}"
        if not _PARAMETER.match(name) or name in (*PLACES, *WIDE, *RESERVED):
            yield f"{path}: not a name for a parameter"
        if name not in used:
            yield f"{path}: the command does not use it"
        yield from _faults_of_values(f"{path}.default", {name: parameter.default}, recipe)


def _used(recipe: Recipe) -> Iterator[str]:
    """Name every placeholder and parameter that something reads."""
    words = [*recipe.command, *recipe.environment.values(), *recipe.links.values()]
    for variant in recipe.variants.values():
        words += [*variant.command, *variant.environment.values()]
        words += [override.value for override in variant.overrides]
    for dataset in recipe.datasets.values():
        words += [*dataset.demo, *dataset.convert, *dataset.check]
    for word in words:
        yield from placeholders(word)
    for word in (*recipe.links, *recipe.takes_from, *_files_of_success(recipe)):
        yield from placeholders(word)
    yield from recipe.length.total if recipe.length else ()


def _files_of_success(recipe: Recipe) -> Iterator[str]:
    for name in recipe.variants or ("",):
        success = choose(recipe, name).success
        yield from (success.file,) if success and success.file else ()


def _faults_of_values(path: str, values: Mapping[str, Setting], recipe: Recipe) -> Iterator[str]:
    for name, value in values.items():
        if name not in recipe.parameters:
            yield f"{path}.{name}: there is no such parameter"
            continue
        try:
            read_setting(name, recipe.parameters[name], str(value))
        except EnvforgeError as error:
            yield f"{path}: {error}"


def _faults_of_programs(recipe: Recipe) -> Iterator[str]:
    known = {"python", "recipe", "data", "source", *recipe.parameters}
    for name, dataset in recipe.datasets.items():
        for program in ("demo", "convert", "check"):
            path = f"datasets.{name}.{program}"
            yield from _faults_of_words(path, getattr(dataset, program), known)
        for key, values in (("set", dataset.set), ("demo_set", dataset.demo_set)):
            # of a dataset that is shared, the other recipe's parameters are none of this one's
            ours = {
                each: values[each]
                for each in values
                if each in recipe.parameters or not recipe.shares
            }
            yield from _faults_of_values(f"datasets.{name}.{key}", ours, recipe)
        if dataset.asset is not None and dataset.asset not in recipe.assets:
            yield f"datasets.{name}.asset: there is no asset {dataset.asset!r}"


def _faults_of_words(path: str, words: Words, known: Iterable[str]) -> Iterator[str]:
    names = set(known)
    for index, word in enumerate(words):
        for name in placeholders(word):
            if name not in names:
                yield f"{path}[{index}]: nothing is called {{{name}}}"
        if re.search(r"[{}]", re.sub(r"\{\w+\}", "", word)):
            yield f"{path}[{index}]: a brace that encloses no name: {word!r}"


def _faults_of_memory(recipe: Recipe) -> Iterator[str]:
    """Tiers grow, change only what is said to be harmless first, and were seen to fit."""
    sizes = [parse_memory_mib(tier.memory) for tier in recipe.tiers]
    if sizes != sorted(set(sizes)):
        yield "tiers: must grow, the smallest memory first"
    for name in recipe.order_of_harm:
        if name not in recipe.parameters:
            yield f"order_of_harm: there is no parameter {name!r}"
    for tier, size in zip(recipe.tiers, sizes, strict=True):
        path = f"tiers.{tier.memory}"
        yield from _faults_of_values(f"{path}.set", tier.set, recipe)
        for name in tier.set:
            if name in recipe.parameters and name not in recipe.order_of_harm:
                yield f"{path}.set.{name}: order_of_harm does not say what harm it does"
        for row in tier.measured:
            if row.reserved_mib > _MOST_OF_A_CARD * size:
                yield f"{path}.measured: {row.reserved_mib} MiB leave too little of {tier.memory}"
    for name, preset in recipe.presets.items():
        yield from _faults_of_values(f"presets.{name}.set", preset.set, recipe)
