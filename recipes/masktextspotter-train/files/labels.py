"""Lines of ground truth: read them as MaskTextSpotter does, name what it cannot read, mend it.

A line is ``x1,y1,...,x4,y4,WORD`` and then, where characters are annotated, for each of them
``x1,y1,...,x4,y4,C``. Total-Text has a polygon of any length instead, and no characters. ``###``
is a word to be skipped. Upstream's classes are the digits and the letters a-z without case.

Runs on Python 3.5 and later, standard library only.
"""
import itertools
import re

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
SKIPPED = "###"
MOST_CHARACTERS = 32  # the decoder's length (SEQUENCE.MAX_LENGTH); what is beyond is not learned

NUMBER = r" *[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)? *"
LINE = re.compile(
    r"(?P<quad>(?:{n},){{8}})(?P<word>.*?)(?P<groups>(?:,(?:{n},){{8}}(?:,|[^,]*))*)$".format(n=NUMBER)
)
GROUP = re.compile(r",((?:{n},){{8}})(,|[^,]*)".format(n=NUMBER))
BOMS = "\ufeff", "\xef\xbb\xbf"  # the second is what a locale without UTF-8 makes of the first


class Unreadable(Exception):
    """A line that is no ground truth at all."""


class Word(object):
    """One line: ``corners`` as written, the transcription, ``characters`` as (corners, char)."""

    def __init__(self, corners, text, characters=()):
        self.corners = corners
        self.text = text
        self.characters = list(characters)

    def __str__(self):
        fields = list(self.corners) + [self.text]
        for corners, char in self.characters:
            fields += list(corners) + [char]
        return ",".join(fields)

    def box(self):
        """Left, top, right, bottom."""
        numbers = [float(corner) for corner in self.corners]
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def parse(line, form):
    """Read one line of ``form``: "grouped" (upstream splits at every comma), "icdar" or "polygon"."""
    line = without_mark(line).strip()
    if not line:
        raise Unreadable("a blank line: upstream stops with ValueError")
    return _polygon(line) if form == "polygon" else _quad(line)


def without_mark(line):
    for mark in BOMS:
        if line.startswith(mark):
            return line[len(mark):]
    return line


def _quad(line):
    match = LINE.match(line)
    if match is None:
        raise Unreadable("not eight numbers and a transcription: upstream stops")
    groups = [(_numbers(n), char) for n, char in GROUP.findall(match.group("groups"))]
    return Word(_numbers(match.group("quad")), match.group("word"), groups)


def _polygon(line):
    """The last field is the word, as upstream has it, unless the numbers before it are odd."""
    fields = line.split(",")
    count = len(list(itertools.takewhile(re.compile(NUMBER + "$").match, fields[:-1]))) // 2 * 2
    if count < 6:
        raise Unreadable("not six or more numbers and a transcription: upstream stops")
    return Word([field.strip() for field in fields[:count]], ",".join(fields[count:]))


def _numbers(text):
    return [number.strip() for number in text.split(",") if number.strip()]


def faults(word, form):
    """Say what upstream does with this word that its author did not mean."""
    if form != "icdar" and "," in word.text:
        yield "a comma in {!r}: upstream reads the rest as coordinates".format(word.text)
    if word.text == SKIPPED:
        return
    if not word.text:
        yield "an empty transcription: upstream takes it for an image without words"
    for _, char in word.characters:
        if char.lower() not in ALPHABET or len(char) != 1:
            yield "character {!r} is none of 0-9 a-z: upstream stops or learns another".format(char)


def mend(word, form):
    """Return the word as upstream can learn it; what cannot be learned becomes ``###``."""
    text = word.text if form == "icdar" else word.text.replace(",", "")
    known = [(c, char) for c, char in word.characters if len(char) == 1 and char.lower() in ALPHABET]
    if not text or (word.characters and not known):
        return Word(word.corners, SKIPPED)
    return Word(word.corners, text, known)
