"""Check and clean the folders MaskTextSpotter trains and tests on.

    python dataset.py check DATA synthtext_train,icdar_2013_test
    python dataset.py clean SOURCE DATA synthtext_train

``check`` reads every line of ground truth and opens images; each fault is one line
``fault: FILE:LINE: what``; exit code 1 when there is any. Of a name that ends in ``?`` only what is
there is checked. ``clean`` changes nothing in SOURCE: it writes the labels and the list anew below
DATA; the images become hard links or, where that cannot be, copies. Both end with ``data: {json}``; its ``items`` are the images of the
first set.

Upstream parses labels only when an image's turn comes: a bad line stops a run after hours, and a
bad line of the test set after the last iteration (icdar2013's ``$5,000`` does).

Runs on Python 3.5 and later; Pillow, which upstream needs, where it is there.
"""
import argparse
import collections
import io
import json
import os
import shutil
import sys

import labels

Layout = collections.namedtuple("Layout", "images labels list form characters")
Fault = collections.namedtuple("Fault", "path line text")

# As in upstream's maskrcnn_benchmark/config/paths_catalog.py. `characters`: learned one by one.
LAYOUTS = {
    "synthtext_train": Layout(
        "synthtext/train_images", "synthtext/train_gts", "synthtext/train_list.txt", "grouped", True
    ),
    "icdar_2013_train": Layout("icdar2013/train_images", "icdar2013/train_gts", None, "icdar", True),
    "icdar_2013_test": Layout("icdar2013/test_images", "icdar2013/test_gts", None, "icdar", False),
    "icdar_2015_train": Layout("icdar2015/train_images", "icdar2015/train_gts", None, "icdar", False),
    "icdar_2015_test": Layout("icdar2015/test_images", None, None, "icdar", False),
    "scut-eng-char_train": Layout(
        "scut-eng-char/train_images", "scut-eng-char/train_gts", None, "grouped", True
    ),
    "total_text_train": Layout("total_text/train_images", "total_text/train_gts", None, "polygon", False),
    "total_text_test": Layout("total_text/test_images", None, None, "polygon", False),
}
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff")


class Summary(object):
    """What a dataset holds, counted while it is checked."""

    def __init__(self):
        self.images = self.words = self.skipped = self.characters = 0


def names(data, layout):
    """Yield (image relative to the image folder, fault or None), in upstream's order."""
    if layout.list is None:
        for name in sorted(os.listdir(os.path.join(data, layout.images))):
            known = name.lower().endswith(IMAGES)
            yield name, None if known else Fault(
                os.path.join(layout.images, name), 0, "not an image: upstream opens every file here"
            )
        return
    for number, line in enumerate(_lines(os.path.join(data, layout.list)), 1):
        name = line.strip()
        yield name, None if name else Fault(layout.list, number, "a blank line: upstream stops on it")


def label_path(data, layout, name):
    """The file upstream would open, relative to ``data``; None if the set has no labels."""
    if layout.labels is None:
        return None
    path = os.path.join(layout.labels, name + ".txt")
    other = os.path.join(layout.labels, "gt_" + name.split(".")[0] + ".txt")
    if layout.form == "icdar" and not os.path.isfile(os.path.join(data, path)):
        return other
    return path


def check(data, name, open_images, summary):
    """Yield every Fault of one dataset; ``open_images`` says how many of its images to open."""
    layout = LAYOUTS[name]
    for required in (layout.images, layout.labels, layout.list):
        if required and not os.path.exists(os.path.join(data, required)):
            yield Fault(required, 0, "not there: {} needs it".format(name))
            return
    entries = list(names(data, layout))
    if not entries:
        yield Fault(layout.list or layout.images, 0, "empty: nothing to read")
    every = max(1, len(entries) // open_images) if open_images else 0
    for index, (image, fault) in enumerate(entries):
        if fault:
            yield fault
            continue
        summary.images += 1
        size, fault = image_size(data, layout, image, bool(every) and index % every == 0)
        if fault:
            yield fault
        for fault in check_labels(data, layout, image, size, summary):
            yield fault


def image_size(data, layout, image, opened):
    """Return ((width, height) or None, Fault or None)."""
    path = os.path.join(layout.images, image)
    if not os.path.isfile(os.path.join(data, path)):
        return None, Fault(path, 0, "not there")
    try:
        from PIL import Image
    except ImportError:
        return None, None
    if not opened:
        return None, None
    try:
        with Image.open(os.path.join(data, path)) as picture:
            return picture.size, None
    except Exception as error:  # Pillow raises whatever the broken format made its decoder raise
        return None, Fault(path, 0, "cannot be opened: {}".format(error))


def check_labels(data, layout, image, size, summary):
    path = label_path(data, layout, image)
    if path is None:
        return
    try:
        lines = _lines(os.path.join(data, path))
    except (IOError, UnicodeDecodeError) as error:
        yield Fault(path, 0, "cannot be read: {}".format(getattr(error, "strerror", None) or error))
        return
    learnable = 0
    for number, line in enumerate(lines, 1):
        try:
            word = labels.parse(line, layout.form)
        except labels.Unreadable as error:
            yield Fault(path, number, str(error))
            continue
        for text in faults_of_word(word, layout, size):
            yield Fault(path, number, text)
        learnable += word.text != labels.SKIPPED
        summary.words += 1
        summary.skipped += word.text == labels.SKIPPED
        summary.characters += len(word.characters)
    if not learnable and layout.list:
        yield Fault(path, 0, "no word to learn: upstream trains on a made-up box instead")


def faults_of_word(word, layout, size):
    for text in labels.faults(word, layout.form):
        yield text
    if layout.characters and word.text != labels.SKIPPED and not word.characters:
        yield "{!r} has no characters: upstream teaches the decoder an empty one".format(word.text)
    left, top, right, bottom = word.box()
    if size and (left >= size[0] or top >= size[1] or right <= 0 or bottom <= 0):
        yield "{!r} lies outside the image of {}x{}".format(word.text, *size)


def clean(data, name, out):
    """Write the labels and the list of one dataset below ``out``; yield what was changed."""
    layout = LAYOUTS[name]
    kept = []
    for image, fault in names(data, layout):
        if fault or not os.path.isfile(os.path.join(data, layout.images, image)):
            yield Fault(os.path.join(layout.images, image), 0, "left out: not an image")
            continue
        path = label_path(data, layout, image)
        if path is None or not os.path.isfile(os.path.join(data, path)):
            yield Fault(os.path.join(layout.images, image), 0, "left out: it has no labels")
            continue
        words, changes = clean_lines(_lines(os.path.join(data, path)), layout)
        for number, text in changes:
            yield Fault(path, number, text)
        if layout.list and all(word.text == labels.SKIPPED for word in words):
            yield Fault(path, 0, "left out: no word to learn")
            continue
        kept.append(image)
        _write(os.path.join(out, path), "".join("{}\n".format(word) for word in words))
    _bring_images(data, out, layout, kept)


def clean_lines(lines, layout):
    """Return the words that upstream can learn, and (line number, what was done) for the others."""
    words, changes = [], []
    for number, line in enumerate(lines, 1):
        try:
            word = labels.parse(line, layout.form)
        except labels.Unreadable as error:
            changes.append((number, "dropped: {}".format(error)))
            continue
        mended = labels.mend(word, layout.form)
        if layout.characters and not mended.characters:
            mended = labels.Word(mended.corners, labels.SKIPPED)
        if str(mended) != str(word):
            changes.append((number, "{!r} became {!r}".format(word.text, mended.text)))
        words.append(mended)
    return words, changes


def _bring_images(data, out, layout, kept):
    for name in kept:
        bring(os.path.join(data, layout.images, name), os.path.join(out, layout.images, name))
    if layout.list:
        _write(os.path.join(out, layout.list), "".join(name + "\n" for name in kept))


def bring(source, target):
    """One file under two names; a copy where a container's mounts or another disk forbid that.

    Not a symbolic link: what it points to is not there when the training sees only its data.
    """
    if os.path.exists(target):
        return
    if not os.path.isdir(os.path.dirname(target)):
        os.makedirs(os.path.dirname(target))
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _lines(path):
    with io.open(path, encoding="utf-8") as stream:
        return stream.read().splitlines()


def _write(path, text):
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    with io.open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def say(faults, word, most):
    """Print the first ``most`` of them; return how many there were."""
    count = 0
    for fault in faults:
        count += 1
        if count <= most:
            place = "{}:{}".format(fault.path, fault.line) if fault.line else fault.path
            print("{}: {}: {}".format(word, place, fault.text))
    if count > most:
        print("{}: ...: and {} more".format(word, count - most))
    return count


def checked(data, datasets, open_images=2000, most=50):
    """Print the faults of each dataset, and what they hold; return the number of faults."""
    total, sets = 0, collections.OrderedDict()
    for name in datasets:
        layout = LAYOUTS[name.rstrip("?")]
        if name.endswith("?") and not os.path.exists(os.path.join(data, layout.images)):
            continue
        summary = Summary()
        total += say(check(data, name.rstrip("?"), open_images, summary), "fault", most)
        sets[name.rstrip("?")] = vars(summary)
    first = next(iter(sets.values()), {"images": 0})
    print("data: " + json.dumps({"items": first["images"], "sets": sets}))
    return total


def cleaned(source, data, datasets, most=50):
    for name in datasets:
        if os.path.exists(os.path.join(source, LAYOUTS[name].images)):
            say(clean(source, name, data), "cleaned", most)
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action")
    for action, folders in (("check", ["data"]), ("clean", ["source", "data"])):
        one = actions.add_parser(action)
        for folder in folders:
            one.add_argument(folder)
        one.add_argument("datasets", help="names as in DATASETS.TRAIN, by commas")
    options = parser.parse_args(arguments)
    names = options.datasets.split(",")
    unknown = sorted(set(name.rstrip("?") for name in names) - set(LAYOUTS))
    if unknown:
        parser.error("no dataset {}; there are {}".format(", ".join(unknown), ", ".join(sorted(LAYOUTS))))
    if options.action == "clean":
        return cleaned(options.source, options.data, names)
    return 1 if checked(options.data, names) else 0


if __name__ == "__main__":
    sys.exit(main())
