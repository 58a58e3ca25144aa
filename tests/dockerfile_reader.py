"""A Dockerfile, read with regular expressions: its stages, what they run, ask for and set."""

from __future__ import annotations

import re


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for word, rest in instructions(text):
        if word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            stage = found[name] = {"parent": parent, "body": []}
        else:
            stage["body"].append((word, rest))
    return found


def runs(stage: dict) -> list[str]:
    return [re.sub(r"\s+", " ", rest) for word, rest in stage["body"] if word == "RUN"]


def apt(stage: dict) -> set[str]:
    """The packages a stage asks apt for by name."""
    asked = set()
    for run in runs(stage):
        for words in re.findall(r"apt-get install ([^&|;]*)", run):
            asked |= {word for word in words.split() if not word.startswith("-")}
    return asked


def environment(*bodies: dict) -> dict[str, str]:
    pairs = [rest for stage in bodies for word, rest in stage["body"] if word == "ENV"]
    found = {}
    for line in pairs:
        for name, quoted, plain in re.findall(
            r'([A-Za-z_]\w*)=(?:"((?:[^"\\]|\\.)*)"|(\S+))', line
        ):
            found[name] = re.sub(r"\\(.)", r"\1", quoted) or plain
    return found


def last(stage: dict, word: str) -> str | None:
    return next((rest for name, rest in reversed(stage["body"]) if name == word), None)
