"""Apply counted edits to a tree, or change nothing and say why.

This file is also copied as it is into build contexts and run there by the platform's own Python,
so it uses the standard library only and nothing newer than Python 3.5:

    python3 edit.py TREE edits.json

``edits.json`` is a list of two kinds of rows, applied in their order:

``{"patch", "file", "find", "replace", "sites"}`` replaces every match of a pattern; ``"sha256"``
pins the file as it was found, ``"applied"`` is a pattern that matches ``sites`` times in a file
where the edit already stands (needed where ``replace`` takes groups from the match).

``{"patch", "add", "content"}`` makes a file that must not be there yet.

Every row is checked before the first file is written: the blog this project grew from ran
``sed -i`` commands of which two matched nothing and exited 0.
"""

import hashlib
import json
import os
import re
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

Edit = Dict[str, Any]
DOES_NOT_FIT = "patch does not fit"
"""How the line begins that says so, for who reads it in the log of a build."""


class DoesNotFit(Exception):
    """A row whose file is missing or another one, or with another number of sites than stated."""


class Tree:
    """Files of a tree as they will be; nothing is written before :meth:`write`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.found = {}  # type: Dict[str, Optional[bytes]]
        self.texts = {}  # type: Dict[str, str]

    def path_of(self, name: str) -> str:
        """Return where a file lies; DoesNotFit where a link leads out of the tree."""
        path = os.path.join(self.root, name)
        inside = os.path.join(os.path.realpath(self.root), "")
        if not os.path.realpath(path).startswith(inside):
            raise DoesNotFit("it leads out of the tree")
        return path

    def text_of(self, name: str) -> Optional[str]:
        """Return a file's text as the rows so far leave it; None where there is no such file."""
        if name not in self.found:
            self.found[name] = self._read(name)
            data = self.found[name]
            if data is not None:
                self.texts[name] = data.decode("utf-8")
        return self.texts.get(name)

    def _read(self, name: str) -> Optional[bytes]:
        path = self.path_of(name)
        if not os.path.lexists(path):
            return None
        with open(path, "rb") as stream:
            return stream.read()

    def write(self) -> None:
        """Write what changed, each file beside itself and renamed, keeping its mode."""
        for name, text in self.texts.items():
            data = text.encode("utf-8")
            if data != self.found[name]:
                _write(self.path_of(name), data)


def apply_edits(tree: str, edits: Sequence[Edit]) -> List[str]:
    """Apply ``edits`` below ``tree``; return one line per row. DoesNotFit changes nothing."""
    files = Tree(tree)
    report = []
    for edit in edits:
        name = edit["add"] if "add" in edit else edit["file"]
        try:
            outcome = _add(files, edit) if "add" in edit else _replace(files, edit)
        except (DoesNotFit, OSError, UnicodeDecodeError) as error:
            raise DoesNotFit("{}: {}: {}".format(edit["patch"], name, error)) from error
        report.append("{}: {}: {}".format(edit["patch"], name, outcome))
    files.write()
    return report


def _replace(files: Tree, edit: Edit) -> str:
    """Edit one file and say what was done; an edit that already stands is left alone."""
    text = files.text_of(edit["file"])
    if text is None:
        raise DoesNotFit("there is no such file")
    if _stands(text, edit):
        return "already applied"
    _check_hash(files.found[edit["file"]], edit.get("sha256"))
    found = len(re.findall(edit["find"], text, re.MULTILINE))
    if found != edit["sites"]:
        raise DoesNotFit(
            "{!r} must match {} times, it matches {}".format(edit["find"], edit["sites"], found)
        )
    files.texts[edit["file"]] = re.sub(edit["find"], edit["replace"], text, flags=re.MULTILINE)
    return "applied"


def _stands(text: str, edit: Edit) -> bool:
    """Tell whether the edit was made before: its outcome is there, and nothing else to change.

    What ``find`` still matches must lie within the outcome (an include that was added to another).
    An outcome within what ``find`` matches (a call that is to lose a part) is no outcome yet.
    """
    if edit.get("applied"):
        pattern = edit["applied"]
    elif edit["replace"]:
        pattern = re.escape(edit["replace"])
    else:
        return False  # what was deleted leaves no trace
    made = _spans(pattern, text)
    return len(made) == edit["sites"] and all(
        any(start <= first and last <= end for start, end in made)
        for first, last in _spans(edit["find"], text)
    )


def _spans(pattern: str, text: str) -> List[Tuple[int, int]]:
    return [match.span() for match in re.finditer(pattern, text, re.MULTILINE)]


def _check_hash(data: Optional[bytes], pinned: Optional[str]) -> None:
    found = hashlib.sha256(data or b"").hexdigest()
    if pinned not in (None, found):
        raise DoesNotFit("its sha256 must be {}, it is {}".format(pinned, found))


def _add(files: Tree, edit: Edit) -> str:
    there = files.text_of(edit["add"])
    if there == edit["content"]:
        return "already applied"
    if there is not None:
        raise DoesNotFit("another file is there already")
    files.texts[edit["add"]] = edit["content"]
    return "added"


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    staging = path + ".envforge"
    with open(staging, "wb") as stream:
        stream.write(data)
    if os.path.exists(path):
        os.chmod(staging, os.stat(path).st_mode & 0o7777)
    os.replace(staging, path)


def main(arguments: Sequence[str]) -> int:
    """Run as a program; exit code 1 and one line on stderr when an edit does not fit."""
    tree, edits = arguments
    with open(edits, "rb") as stream:
        document = json.loads(stream.read().decode("utf-8"))
    try:
        lines = apply_edits(tree, document)
    except DoesNotFit as error:
        sys.stderr.write("{}: {}\n".format(DOES_NOT_FIT, error))
        return 1
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
