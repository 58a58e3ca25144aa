"""The pictures of a run, as data within its page, and what was found in them."""

from __future__ import annotations

import base64
import itertools
import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from envforge.recipes.document import Boxes
from envforge.training.record import RunRecord

_MOST = 12
_MOST_BYTES = 1_500_000
"""Of one picture: a page is to be sent around."""
_MOST_WORDS = 6
_FAINTEST = 0.15
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CORNERS = 4
"""Numbers: two opposite corners stand for a box."""


class Box(NamedTuple):
    """One thing found."""

    points: str
    """As an SVG polygon has them, in the picture's pixels."""
    words: str
    score: str
    """Empty where none is said."""

    @property
    def title(self) -> str:
        """What it says where one points at it."""
        return ", ".join(each for each in (self.words, self.score) if each)

    @property
    def sure(self) -> float:
        """How sure it is; wholly, where nothing is said."""
        return min(float(self.score), 1.0) if _NUMBER.fullmatch(self.score) else 1.0

    @property
    def weight(self) -> float:
        """How strongly it is drawn: what is hardly sure must not hide what is."""
        return max(self.sure, _FAINTEST)


class Sample(NamedTuple):
    """One picture."""

    name: str
    data: str
    """An address that holds the picture itself."""
    boxes: tuple[Box, ...]

    @property
    def readings(self) -> tuple[str, ...]:
        """The surest things with words; a number alone tells nothing beside the picture."""
        read = sorted((box for box in self.boxes if box.words), key=lambda box: -box.sure)
        return tuple(box.title for box in read[:_MOST_WORDS])


def find_samples(record: RunRecord) -> Iterator[Sample]:
    """Yield the newest pictures of the training; without a glob those of what is worth a look."""
    folder = Path(record.run_dir)
    globs = [record.samples] if record.samples else [f"{name}/**/*.png" for name in record.show]
    found = {path for glob in globs for path in folder.glob(glob) if path.is_file()}
    for path in sorted(found, key=lambda path: (path.stat().st_mtime, path.name))[-_MOST:]:
        kind = mimetypes.guess_type(path.name)[0] or ""
        if kind.startswith("image/") and path.stat().st_size <= _MOST_BYTES:
            data = base64.b64encode(path.read_bytes()).decode()
            name = str(path.relative_to(folder))
            yield Sample(name, f"data:{kind};base64,{data}", tuple(_boxes(record, name)))


def _boxes(record: RunRecord, name: str) -> Iterator[Box]:
    """Read what was found in a picture; nothing where there is no such file."""
    if record.boxes is None or record.samples is None:
        return
    file = Path(record.run_dir) / beside(name, record.samples, record.boxes)
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if found := re.search(record.boxes.line, line):
            groups = found.groupdict()
            words, score = (groups.get(name) or "" for name in ("words", "score"))
            yield Box(_polygon(found["points"]), words, score)


def beside(name: str, samples: str, boxes: Boxes) -> str:
    """Name the file of a picture: a ``*`` stands there for what it stands for in the picture's."""
    form = "([^/]*)".join(map(re.escape, samples.split("*")))
    found = re.fullmatch(form, name)
    stars = found.groups() if found else ()
    parts = itertools.zip_longest(boxes.file.split("*"), stars, fillvalue="")
    return "".join(itertools.chain.from_iterable(parts))


def _polygon(text: str) -> str:
    numbers = _NUMBER.findall(text)
    if len(numbers) == _CORNERS:
        left, top, right, bottom = numbers
        numbers = [left, top, right, top, right, bottom, left, bottom]
    return " ".join(f"{x},{y}" for x, y in zip(numbers[::2], numbers[1::2], strict=False))
