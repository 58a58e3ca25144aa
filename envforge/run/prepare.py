"""From a recipe and a place to a training that may start: staged, judged, compared, measured.

Everything that can be known to be wrong is found here, before hours are spent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envforge.errors import HostMismatch, UsageError
from envforge.events import Event, OnEvent
from envforge.recipes import LoadedRecipe, Recipe, Setting, choose, fill, settle, variant_for
from envforge.recipes.asset import Fetched, fetch_assets, lay_out, needed_assets, refuse_unknown
from envforge.recipes.dataset import Examples, Request, Said, prepare_examples
from envforge.recipes.difference import Duration, differences, duration, shorter_than
from envforge.recipes.document import Variant, Words
from envforge.recipes.memory import tier_for
from envforge.recipes.packages import lay_out_packages, pins_for
from envforge.recipes.setting import Settled
from envforge.recipes.stage import Checkout, Wish, stage
from envforge.recipes.variant import find_variant, refuse_unfit
from envforge.run.extension import Compilation, compile_extension
from envforge.run.place import Device, Place
from envforge.run.preflight import refuse_small_disk, refuse_too_few_files
from envforge.run.request import RunRequest
from envforge.run.staged import Inputs, Staged
from envforge.run.survey import Question, Survey, program_of, survey
from envforge.run.view import joined_path, mounts, seen
from envforge.training import Mounted
from envforge.training.errand import Errand

SHARE_OF_CARD = 0.9
"""What a training may take of a card: its driver, context and display need the rest."""
_OF_PROGRAMS = ("recipe", "packages")
"""What a recipe's own program sees beside the examples."""
_ALWAYS = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training that may start."""

    loaded: LoadedRecipe
    """The recipe as its chosen variant makes it."""
    variant: Variant | None
    settled: Settled
    seen: Mapping[str, str]
    """Where the training sees each folder, by the name of its placeholder."""
    mounts: tuple[Mounted, ...]
    device: Device
    environment: Mapping[str, str]
    wrapper: Words
    """Words between the interpreter and its script."""
    staged: Staged


class Preparation:
    """A recipe being prepared: each step needs what those before it have found."""

    def __init__(
        self, loaded: LoadedRecipe, place: Place, inputs: Inputs, on_event: OnEvent
    ) -> None:
        self._loaded, self._place = loaded, place
        self._inputs, self._on_event = inputs, on_event
        self._variant: Variant | None = None
        self._name = ""
        self._survey: Survey | None = None
        self._device: Device = place.device
        self._folders: dict[str, Path] = {"recipe": loaded.files}
        self._settled = Settled({}, {})

    def prepare(
        self, request: RunRequest, before: Mapping[str, Setting], run_dir: Path
    ) -> Prepared:
        """Take every step; an EnvforgeError is one that the training was spared."""
        refuse_unknown(self._recipe, request.assets)
        self._ask_interpreter()
        self._choose(request, before)
        self._lay_out_packages()
        self._settle(request, before)
        checkout = self._stage()
        self._refuse_astray(checkout)
        examples, fetched = self._find_what_is_needed()
        self._take_from()
        length = self._length(examples)
        refuse_small_disk(self._recipe, run_dir)
        refuse_too_few_files(self._recipe, self._place.on)
        overrides = self._variant.overrides if self._variant else ()
        found = self._survey
        staged = Staged(
            inputs=self._inputs,
            variant=self._name,
            python_tag=found.tag if found else "",
            torch=found.torch if found else self._place.torch,
            card=found.card if found else None,
            checkout=checkout,
            packages=str(self._folders["packages"]) if "packages" in self._folders else None,
            examples=examples,
            assets=fetched,
            differences=differences(self._recipe, overrides, self._settled),
            steps=length.steps if length else None,
            epochs=length.epochs if length else None,
            shorter=shorter_than(length, self._recipe, request.settings, self._memory()),
            estimated_s=length.seconds if length else None,
            estimated_on=length.card if length else "",
        )
        return self._prepared(staged, run_dir)

    @property
    def _recipe(self) -> Recipe:
        return self._loaded.recipe

    def _seen(self) -> dict[str, str]:
        return seen(self._place.on, self._folders)

    def _choose(self, request: RunRequest, before: Mapping[str, Setting]) -> None:
        """Take the variant that is asked for, that the run had, or that fits torch and Python."""
        found = self._survey
        if not self._recipe.variants or found is None:
            return
        asked = request.settings.get("variant") or str(before.get("variant") or "")
        self._name = asked or variant_for(self._recipe, found.torch, found.python)
        refuse_unfit(self._recipe, self._name, found.torch, found.python)
        self._variant = find_variant(self._recipe, self._name)
        self._loaded = self._loaded._replace(recipe=choose(self._recipe, self._name))

    def _ask_interpreter(self) -> None:
        """Ask what is there, for a recipe that depends on it; decide what computes."""
        if not (self._recipe.variants or self._recipe.tiers):
            return
        every = [name for each in self._recipe.variants.values() for name in each.modules]
        question = Question(modules=tuple(dict.fromkeys(every)), environment=self._environment())
        found = survey(self._place, question)
        if self._device == "cuda" and found.card is None:
            raise HostMismatch(
                "no card can compute",
                because=(f"torch {found.torch} of {self._place.python} sees none",),
                hint="leave out --gpu, or give --cpu",
            )
        self._survey = found
        self._device = "cuda" if found.card else "cpu"

    def _environment(self) -> dict[str, str]:
        """On the CPU no card is to be seen: some upstreams take one as soon as it is there."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self._device == "cpu" else {}
        packages = self._seen().get("packages")
        own = fill(tuple(self._recipe.environment.values()), self._values())
        named = dict(zip(self._recipe.environment, own, strict=True))
        inherited = os.environ.get("PYTHONPATH") if self._place.on == "local" else None
        path = joined_path(named.get("PYTHONPATH"), packages, inherited)
        return {**_ALWAYS, **hidden, **named, **({"PYTHONPATH": path} if path else {})}

    def _values(self) -> dict[str, Setting]:
        """Everything a placeholder can stand for, as far as it is known."""
        unknown = dict.fromkeys(("checkout", "data", "assets", "from", "run_dir"), "")
        python = {"python": self._place.python, "device": self._device}
        return {**unknown, **self._settled.values, **self._seen(), **python}

    def _lay_out_packages(self) -> None:
        """Take the pinned packages where the interpreter lacks one of those that are needed."""
        found = self._survey
        if self._variant is None or found is None:
            return
        missing = {
            name: found.missing[name] for name in self._variant.modules if name in found.missing
        }
        if not missing:
            return
        if self._variant.packages is None:
            because = tuple(f"{name}: {fault}" for name, fault in missing.items())
            raise HostMismatch("the interpreter lacks what upstream imports", because=because)
        path = self._loaded.shared / self._variant.packages
        pins = pins_for(path, found.tag, found.torch, tuple(missing))
        self._folders["packages"] = lay_out_packages(pins, self._on_event)

    def _settle(self, request: RunRequest, before: Mapping[str, Setting]) -> None:
        card = self._survey.card if self._survey else None
        vram = self._inputs.vram_mib
        if vram and card is None:
            self._on_event(Event("warning", "no card: nothing is capped, the values are a card's"))
        demo, memory = self._inputs.demo, self._memory()
        self._settled = settle(self._recipe, before, request.settings, memory, demo=demo)
        if self._name:
            self._settled.values["variant"] = self._name

    def _memory(self) -> int | None:
        """The card's memory, or the one that is rehearsed; None on the CPU."""
        card = self._survey.card if self._survey else None
        return self._inputs.vram_mib or (card.memory_mib if card else None)

    def _stage(self) -> Checkout | None:
        found = self._survey
        if self._variant is None or found is None:
            return None
        wish = Wish(
            loaded=self._loaded,
            variant=self._variant,
            torch=self._place.torch,
            settings=self._settled.values,
            source=Path(self._inputs.upstream) if self._inputs.upstream else None,
            built_for=f"{found.tag} {found.torch} {self._place.image_id} {found.card}",
        )
        build = self._compile if self._variant.extension else None
        checkout = stage(wish, self._on_event, build)
        self._folders["checkout"] = Path(checkout.path)
        return checkout

    def _compile(self, tree: Path) -> None:
        """Let upstream compile its machine code in the tree that is being staged."""
        extension = self._variant.extension if self._variant else None
        card = self._survey.card if self._survey else None
        if extension is None:
            return
        folders = {**self._folders, "checkout": tree}
        values = {**self._values(), **seen(self._place.on, folders)}
        errand = Errand(
            fill(extension.command, values),
            mounts(self._place.on, folders, "checkout"),
            self._environment(),
            seen(self._place.on, folders)["checkout"],
            cards=True,
        )
        compile_extension(Compilation(extension, tree, card), errand, self._place, self._on_event)

    def _refuse_astray(self, checkout: Checkout | None) -> None:
        """Upstream's modules must be this checkout's: a package of the same name would win."""
        if checkout is None or self._variant is None:
            return
        question = Question(
            modules=self._variant.modules,
            imports=self._variant.imports,
            checkout=self._seen()["checkout"],
            script=next(iter(fill(self._recipe.command[1:2], self._values())), ""),
            mounts=mounts(self._place.on, self._folders),
            environment=self._environment(),
        )
        found = survey(self._place, question)
        faults = {**found.missing, **found.astray}
        if faults:
            raise HostMismatch(
                "upstream's code does not import as it must",
                because=tuple(f"{name}: {fault}" for name, fault in faults.items()),
            )

    def _find_what_is_needed(self) -> tuple[Examples | None, tuple[Fetched, ...]]:
        """Judge the user's examples before anything is fetched, unless they are to be fetched."""
        if self._inputs.data or self._inputs.demo:
            return self._find_examples(()), self._fetch_assets()
        fetched = self._fetch_assets()
        return self._find_examples(fetched), fetched

    def _fetch_assets(self) -> tuple[Fetched, ...]:
        values, inputs = self._settled.values, self._inputs
        wanted = needed_assets(
            self._recipe,
            dataset=str(values.get("dataset", "")),
            preset=str(values.get("preset", "")),
            demo=inputs.demo,
            given=inputs.data is not None,
        )
        brought = {name: Path(path) for name, path in inputs.assets.items()}
        fetched = fetch_assets(wanted, brought, self._on_event)
        if fetched:
            self._folders["assets"] = lay_out(fetched, self._recipe.assets)
        return fetched

    def _find_examples(self, fetched: tuple[Fetched, ...]) -> Examples | None:
        if not self._recipe.datasets:
            return None
        name = str(self._settled.values["dataset"])
        chosen = self._recipe.datasets[name]
        archives = {each.name: Path(each.path) for each in fetched}
        request = Request(
            name=name,
            dataset=chosen,
            given=Path(self._inputs.data) if self._inputs.data else None,
            demo=self._inputs.demo,
            archive=archives.get(chosen.asset or ""),
            files=self._loaded.files,
        )
        examples = prepare_examples(request, self._run_program, self._on_event)
        self._folders["data"] = Path(examples.path)
        return examples

    def _run_program(self, words: Words, places: Mapping[str, Path], writable: str) -> Said:
        """Run a program of the recipe where the training will run."""
        own = {name: path for name, path in self._folders.items() if name in _OF_PROGRAMS}
        folders: dict[str, Path] = {**own, **places}
        values = {**self._values(), **seen(self._place.on, folders)}
        errand = Errand(
            fill(words, values), mounts(self._place.on, folders, writable), self._environment()
        )
        return self._place.executor.carry_out(errand)

    def _take_from(self) -> None:
        """Check that the other run has what this one needs."""
        if not self._recipe.takes_from:
            return
        if self._inputs.taken is None:
            what = f"{self._recipe.name} takes files of another run"
            raise UsageError(what, hint="--from RUN_DIR")
        folder = Path(self._inputs.taken)
        names = fill(self._recipe.takes_from, self._settled.values)
        missing = tuple(name for name in names if not (folder / name).is_file())
        if missing:
            because = tuple(f"{name}: is missing" for name in missing)
            raise UsageError(f"{folder} has not what {self._recipe.name} needs", because=because)
        self._folders["from"] = folder

    def _length(self, examples: Examples | None) -> Duration | None:
        tier = tier_for(self._recipe, self._memory())
        items = examples.items if examples else None
        return duration(self._recipe, self._settled.values, tier, self._name, items)

    def _prepared(self, staged: Staged, run_dir: Path) -> Prepared:
        folders = {**self._folders, "run_dir": run_dir}
        others = {name: path for name, path in self._folders.items() if name != "recipe"}
        every = list(mounts(self._place.on, others))  # its files and run_dir a job has by itself
        wrapper: Words = ()
        if self._inputs.vram_mib and self._device == "cuda":
            program = program_of(self._place, "vram")
            wrapper = (program.target, str(int(self._inputs.vram_mib * SHARE_OF_CARD)))
            every.append(program)
        return Prepared(
            loaded=self._loaded,
            variant=self._variant,
            settled=self._settled,
            seen=seen(self._place.on, folders),
            mounts=tuple(every),
            device=self._device,
            environment=self._environment(),
            wrapper=wrapper,
            staged=staged,
        )
