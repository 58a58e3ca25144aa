"""Pairs of pictures side by side: make a few, and judge those that are there.

    pairs.py demo DATA    8 pairs to train on, 2 to test with
    pairs.py check DATA   every picture can be read and is a pair

Says `data: {json}` and `fault: PLACE: words`. Needs Pillow; runs on Python 2.7 and 3.
"""

from __future__ import print_function

import json
import os
import random
import sys

from PIL import Image, ImageDraw

# upstream's data/image_folder.py takes these and passes over everything else without a word
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".tif", ".tiff")
SIDE = 256


def demo(data):
    """Coloured blocks, and beside them the plan of them."""
    for phase, pairs in (("train", 8), ("test", 2)):
        os.makedirs(os.path.join(data, phase))
        for number in range(1, pairs + 1):
            picture = pair(random.Random("%s %d" % (phase, number)))
            picture.save(os.path.join(data, phase, "%d.png" % number))


def pair(chance):
    photo = Image.new("RGB", (SIDE, SIDE), (180, 160, 140))
    plan = Image.new("RGB", (SIDE, SIDE), (0, 0, 170))
    for _ in range(9):
        x, y = chance.randrange(0, SIDE - 40), chance.randrange(0, SIDE - 40)
        box = (x, y, x + chance.randrange(16, 40), y + chance.randrange(16, 40))
        shade = chance.randrange(40, 120)
        ImageDraw.Draw(photo).rectangle(box, fill=(shade, shade + 20, shade + 60))
        ImageDraw.Draw(plan).rectangle(box, fill=(0, 170, 255))
    both = Image.new("RGB", (2 * SIDE, SIDE))
    both.paste(photo, (0, 0))
    both.paste(plan, (SIDE, 0))
    return both


def check(data):
    """The training reads `train`; `test`, where it is, must hold up, too."""
    items = {}
    for phase in ("train", "test"):
        folder = os.path.join(data, phase)
        if os.path.isdir(folder):
            paths = sorted(pictures(folder))
            items[phase] = len(paths)
            if not paths:
                fault(phase, "there is no picture in it")
            for path in paths:
                check_picture(data, path)
    print("data: " + json.dumps({"items": items.get("train", 0), "test_items": items.get("test", 0)}))


def pictures(folder):
    for root, _, names in os.walk(folder):
        for name in names:
            if name.lower().endswith(ENDINGS):
                yield os.path.join(root, name)


def check_picture(data, path):
    place = os.path.relpath(path, data)
    try:
        with open(path, "rb") as stream:
            width, height = Image.open(stream).convert("RGB").size
    except (IOError, OSError, SyntaxError, ValueError) as error:  # Pillow has no one error
        fault(place, "cannot be read: %s" % error)
        return
    if width <= height:
        fault(place, "%d x %d pixels: not two pictures side by side" % (width, height))


def fault(place, words):
    global faults
    faults += 1
    print("fault: %s: %s" % (place, words))


faults = 0

if __name__ == "__main__":
    if sys.argv[1] == "demo":
        demo(sys.argv[2])
    else:
        check(sys.argv[2])
    sys.exit(1 if faults else 0)
