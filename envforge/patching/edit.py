"""Apply counted edits to a tree, or change nothing and say why.

This file is also copied as it is into build contexts and run there by the platform's own Python,
so it uses the standard library only and nothing newer than Python 3.5:

    python3 edit.py TREE edits.json

``edits.json`` is ``[{"patch", "file", "find", "replace", "sites"}, ...]``. Every edit is checked
before the first file is written: the blog this project grew from ran ``sed -i`` commands of which
two matched nothing and exited 0.
"""

import json
import os
import re
import sys
from typing import Any, Dict, List, Sequence, Tuple

Edit = Dict[str, Any]


class DoesNotFit(Exception):
    """An edit whose file is missing, or which matches another number of sites than it states."""


def apply_edits(tree: str, edits: Sequence[Edit]) -> List[str]:
    """Apply ``edits`` below ``tree``; return one line per edit. DoesNotFit changes nothing."""
    contents = {}  # type: Dict[str, str]
    report = []
    for edit in edits:
        path = os.path.join(tree, edit["file"])
        if path not in contents:
            contents[path] = _read(path, edit)
        contents[path], outcome = _edited(contents[path], edit)
        report.append("{}: {}: {}".format(edit["patch"], edit["file"], outcome))
    for path, text in contents.items():
        _write(path, text)
    return report


def _edited(text: str, edit: Edit) -> Tuple[str, str]:
    """Return the new text and what was done; an edit that already stands is left alone."""
    found = len(re.findall(edit["find"], text, re.MULTILINE))
    if found == edit["sites"]:
        return re.sub(edit["find"], edit["replace"], text, flags=re.MULTILINE), "applied"
    if found == 0 and text.count(edit["replace"]) == edit["sites"]:
        return text, "already applied"
    raise DoesNotFit(
        "{}: {}: {!r} must match {} times, it matches {}".format(
            edit["patch"], edit["file"], edit["find"], edit["sites"], found
        )
    )


def _read(path: str, edit: Edit) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DoesNotFit("{}: {}: {}".format(edit["patch"], edit["file"], error)) from error


def _write(path: str, text: str) -> None:
    """Write beside the file and rename, keeping its mode."""
    staging = path + ".envforge"
    with open(staging, "wb") as stream:
        stream.write(text.encode("utf-8"))
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
        sys.stderr.write("patch does not fit: {}\n".format(error))
        return 1
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
