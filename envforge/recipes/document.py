"""The form of ``recipe.yaml``: data only. A recipe runs no code of its own on the host.

Programs a recipe brings (dataset tools, its own training) lie in its ``files`` folder and run where
the training runs. Patterns are regular expressions with named groups, searched in one line of the
training's output at a time. Unknown keys are faults. ``docs/recipes.md`` explains the form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from envforge.recipes.ladder import Ladder

FILE = "recipe.yaml"

Setting = int | float | str
Meaning = Literal[
    "finished",
    "check-failed",
    "diverged",
    "bad-checkpoint",
    "gpu-oom",
    "host-oom",
    "crash",
    "cancelled",
]
"""What an exit code of this recipe stands for, in the words of a run's record."""

Text = Annotated[str, msgspec.Meta(min_length=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$")]
Size = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(MiB|GiB)$")]
"""Memory, as in ``--vram``: ``4GiB``."""
Count = Annotated[int, msgspec.Meta(ge=1)]
Words = tuple[str, ...]
"""An argument list. Placeholders in braces are filled in; there is no shell."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that ``--set KEY=VALUE``, a preset and a memory tier may change."""

    kind: Literal["integer", "number", "word", "switch"]
    """A switch is ``true`` or ``false``."""
    default: Setting
    """Where the parameter fills an override: upstream's own value."""
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    """For a word: the only values there are. Empty: any word without shell metacharacters."""


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to read the training's output."""

    progress: str
    """A line of progress: ``step`` (without it each such line is a step), and where the upstream
    says so ``total``, ``seconds`` (of one step) and ``losses`` (the part of the line that holds
    them; else the whole line does), ``memory`` (MiB, the most so far). With a group ``epoch`` the
    steps count from each epoch's start, and are items of the training set."""
    loss: str | None = None
    """One loss within that part: ``name``, ``value``, maybe ``average`` (since the start). Applied
    as often as it matches."""
    epoch_size: str | None = None
    """How many ``items`` an epoch has; needed where ``progress`` has ``epoch``."""
    epoch_end: str | None = None
    """An epoch has ended: ``epoch``, maybe ``epochs``, how many there will be."""
    check: str | None = None
    """A judgement: ``name``, ``outcome`` (``ok``, ``skipped``, else failed), maybe ``words``."""
    checkpoint: str | None = None
    """A checkpoint has been written: ``path``, relative to the run directory, or ``number``, to be
    put into the checkpoint rule's parts."""
    resumed: str | None = None
    """It goes on from a checkpoint: maybe ``step``, maybe ``path``."""
    stopped: str | None = None
    """It has stopped as asked: maybe ``step``."""


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON file the training leaves in the run directory, and what it must say."""

    file: str
    field: str
    equals: bool | int | str


class Success(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be *reached*, all of it: an exit code alone proves nothing."""

    line: str | None = None
    """A line of the output. ``End of epoch (?P<n>\\d+) / (?P=n) `` holds for the last one only."""
    result: Result | None = None
    file: str | None = None
    """A file of the run directory that the attempt has written; parameters are filled in."""
    exit_code: int | None = None
    """And this code, where upstream does more after its last words, and says nothing of it."""


class CheckpointRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one checkpoint of this upstream consists of, and how to go on from it."""

    parts: tuple[Text, ...]
    """Its files below the run directory, each with ``{number}``; one without its others is none."""
    unit: Literal["step", "epoch"]
    """What the number counts."""
    pointer: str | None = None
    """A file of the run directory whose text names the newest checkpoint, where upstream has it."""
    resume: Words = ()
    """What stands for ``{resume}`` in the command when there is one: with ``{number}`` as its file
    name has it, and ``{next}``, the number that follows. A fresh start has nothing there."""
    forgets: tuple[Literal["optimizer", "schedule", "step"], ...] = ()
    """What a resumed upstream begins anew."""
    size_mib: Count
    """Of all parts together."""
    every: str
    """The parameter that says how many units lie between two."""
    keep: Count = 3
    """How many of the newest are kept."""


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of upstream's configuration that the recipe sets, and the one it expects there.

    ``argparse`` and ``yacs`` become words of the command, at ``{overrides}``; ``yaml`` is edited in
    the checkout. An upstream whose own value is another than the stated one ends with exit 5.
    """

    form: Literal["argparse", "yacs", "yaml"]
    key: Text
    """``--batch_size``; ``SOLVER.BASE_LR``."""
    file: str
    """Of the checkout: the Python file with ``add_argument`` or ``set_defaults``, the YAML file."""
    otherwise: str | None = None
    """``yacs``: the Python file with the assignments of the defaults, for what ``file`` lacks."""
    upstream: bool | int | str | tuple[bool | int | str, ...] | None
    """The value that stands there; a floating number is quoted."""
    value: Text
    """Ours: parameters in braces, or a constant."""
    why: Text


class Extension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machine code that upstream builds for itself, in the checkout, before the first start."""

    command: Words
    environment: dict[str, str] = {}
    """``{arch_list}`` stands for the card's compute capability."""
    product: str
    """A glob of the checkout. With a card at hand it must hold code for it."""


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upstream at one commit: with its torch range, patches, command line and log, as one unit."""

    commit: Commit
    date: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    torch: str
    """The releases it runs on, as ``>=A,<B``: both bounds."""
    python: str | None = None
    """The Pythons it runs on, where its code needs others than the torch does."""
    why: Text
    patches: tuple[str, ...] = ()
    """Ids of the upstream's series; one whose condition does not hold for the torch is left out."""
    modules: tuple[str, ...] = ()
    """What it imports beside torch and its own. Where one is missing, ``packages`` are taken."""
    packages: str | None = None
    """A file beside the document: pinned packages as of the date, by hash, per Python tag."""
    imports: tuple[str, ...] = ()
    """Upstream's own modules that must resolve to this checkout."""
    command: Words = ()
    on_device: dict[Literal["cpu", "cuda"], Words] = {}
    """What stands for ``{on_device}`` in the command."""
    overrides: tuple[Override, ...] = ()
    environment: dict[str, str] = {}
    extension: Extension | None = None
    log: Log | None = None
    checkpoint: CheckpointRule | None = None
    success: Success | None = None
    source: Text
    evidence: Text


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The project whose code is trained."""

    name: Text
    url: Text
    licence: Text
    omit: tuple[str, ...] = ()
    """Top-level entries nobody needs, left out of a checkout."""
    series: str | None = None
    """The patch series, a file beside the document, in the form of ``patches/pytorch``."""


class Asset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file from elsewhere, seen by the training as ``{assets}/<file>``."""

    file: Text
    help: Text
    licence: Text
    urls: tuple[str, ...] = ()
    """Tried in order. None: you bring it, with ``--asset NAME=FILE``."""
    sha256: Sha256 | None = None
    """Where a source gives it; else what came first is recorded and asked for from then on."""
    size_bytes: Count | None = None
    needed: Literal["always", "demo", "data", "when-asked"] = "always"
    """``data``: with real examples, not for ``--demo``. ``when-asked``: for the dataset or preset
    that names it."""
    source: Text


class Dataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where examples come from, and the programs that make, convert and judge them.

    Programs run where the training runs, without a network, and see ``{data}`` (written by
    ``demo`` and ``convert``, read by ``check``) and ``{source}`` (the folder the user gave). They
    say on stdout ``data: {json}`` with at least ``items``, and for each fault
    ``fault: PLACE: words``; a fault ends the run with exit 3 before anything is trained.
    """

    help: Text
    layout: tuple[str, ...] = ()
    """What must lie below the folder."""
    asset: str | None = None
    """The archive it comes in; without ``--data`` it is fetched and unpacked."""
    folder: str = "."
    """The folder of the archive that holds the layout."""
    set: dict[str, Setting] = {}
    """Values that go with it."""
    demo: Words = ()
    """Makes a tiny one in the empty folder ``{data}``."""
    demo_set: dict[str, Setting] = {}
    """Values that go with the tiny one: a training of a minute."""
    convert: Words = ()
    """Turns ``{source}`` into the layout, in the empty folder ``{data}``; none: used as it is."""
    check: Words = ()
    disk_mib: int = 0
    """What unpacking and converting take, at most."""


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of values, ``--set preset=NAME``."""

    help: Text
    set: dict[str, Setting]
    stretch: bool = True
    """Whether ``rescale`` may make the schedule longer; false: it sees fewer images."""
    asset: str | None = None
    source: Text


class Rescale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows the batch: with half of it half of ``linear`` and twice of ``inverse``.

    Only what nobody has set: a tier's, preset's or user's own value stays.
    """

    batch: str
    linear: tuple[str, ...] = ()
    inverse: tuple[str, ...] = ()
    source: Text


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tier took, where somebody has run it."""

    variant: str
    torch: str
    card: str
    allocated_mib: Count
    reserved_mib: Count
    step_us: Count
    """Microseconds of a step (of an item, where the log counts those)."""
    source: Text


class MemoryTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values for a card of so much memory. The largest tier that fits is taken."""

    memory: Size
    set: dict[str, Setting]
    why: Text
    measured: tuple[Measurement, ...] = ()
    source: Text
    evidence: Text


class Length(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the training is: the sum of parameters, in steps or in epochs of the dataset."""

    total: tuple[str, ...]
    unit: Literal["step", "epoch"]
    batch: str | None = None
    """The parameter that says how many items a step has."""
    multiple_of: str | None = None
    """The parameter that must divide it, where upstream would else not save the end."""


class Boxes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found in the samples: drawn over them in the report."""

    file: Text
    """Of the run directory, one for each sample: a ``*`` stands for what it stands for in the
    sample's own name. One line a thing found."""
    line: Text
    """Such a line, a regular expression: ``points`` (x,y,x,y,... in the picture's pixels; two pairs
    are opposite corners), maybe ``words``, maybe ``score``."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document ``recipe.yaml``.

    A recipe with an ``upstream`` has variants, each with its own commit, torch and command; one
    without has ``torch`` and ``command`` itself. What a variant leaves out is the recipe's own.
    """

    schema: Literal["envforge.recipe/1"]
    name: str
    summary: str
    shares: str | None = None
    """A recipe beside this one whose upstream, files, datasets, assets and variants are taken; a
    variant or a key that stands here, too, wins, key by key."""
    torch: str = ""
    """The releases it runs on, as ``>=A,<B``: both bounds."""
    files: str
    """A folder beside the document, mounted read-only: ``{recipe}``."""
    upstream: Upstream | None = None
    variants: dict[str, Variant] = {}
    """The first one that runs on the torch at hand is taken; ``--set variant=NAME``."""
    command: Words = ()
    """``{python}``, ``{recipe}``, ``{run_dir}``, ``{device}`` (``auto``, ``cpu`` or ``cuda``),
    ``{checkout}``, ``{data}``, ``{assets}``, ``{from}`` and the parameters' names are filled in;
    ``{overrides}``, ``{resume}`` and ``{on_device}`` alone in a word stand for several."""
    environment: dict[str, str] = {}
    parameters: dict[str, Parameter] = {}
    presets: dict[str, Preset] = {}
    rescale: Rescale | None = None
    tiers: tuple[MemoryTier, ...] = ()
    """Smallest first."""
    order_of_harm: tuple[str, ...] = ()
    """The parameters tiers may change, least harm first."""
    length: Length | None = None
    assets: dict[str, Asset] = {}
    datasets: dict[str, Dataset] = {}
    """The first one is taken; ``--set dataset=NAME``."""
    takes_from: tuple[str, ...] = ()
    """Files of another run that this one needs: ``--from RUN_DIR``, seen as ``{from}``. The
    settings of that run are this one's defaults."""
    links: dict[str, str] = {}
    """Links made in the run directory: name -> target, with places in braces."""
    log: Log | None = None
    checkpoints: str = "checkpoints/*"
    """A glob within the run directory."""
    checkpoint: CheckpointRule | None = None
    success: Success | None = None
    exit_codes: dict[int, Meaning] = {}
    ladder: Ladder = Ladder()
    when_finished: Literal["start-again", "leave"] = "leave"
    """What a run directory gets whose run has already succeeded."""
    stop_wait_s: int = 60
    """How long a training that was asked to stop may take for its checkpoint."""
    shm_size_mib: int
    """``/dev/shm`` of the container; the engine's own 64 MiB kill DataLoader workers."""
    open_files: int = 1024
    """The limit its workers need."""
    show: tuple[str, ...] = ()
    """Files and folders of the run directory that are worth a look afterwards."""
    samples: str | None = None
    """A glob of the run directory: pictures the training makes on its way."""
    boxes: Boxes | None = None


class LoadedRecipe(NamedTuple):
    """A recipe and the folder it was read from."""

    recipe: Recipe
    folder: Path
    reference: str
    """What :func:`load_recipe` finds it by from any directory: a name, or an absolute path."""
    shared: Path
    """The folder that upstream's patches and packages and the files are in: of the recipe this one
    ``shares`` with, else its own."""

    @property
    def files(self) -> Path:
        """The folder that the training sees as ``{recipe}``."""
        return self.shared / self.recipe.files
