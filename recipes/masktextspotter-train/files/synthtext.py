"""Lay SynthText out as MaskTextSpotter reads it.

    python synthtext.py SOURCE DATA

SOURCE holds SynthText.zip or the folder SynthText it was unpacked to and, if you have them, the
labels that MaskTextSpotter's author converted: ``labels.zip`` or a folder ``labels``. Made are
``DATA/synthtext/train_images/<n>/<name>.jpg``, ``train_gts/<n>/<name>.jpg.txt`` and
``train_list.txt``, which upstream needs and nobody publishes. Without ``labels`` they are
converted from SynthText's own index ``gt.mat``, which lies beside its images; that needs scipy,
which upstream needs, and the index whole in memory.

Runs on Python 3.5 and later.
"""
import io
import os
import shutil
import sys
import zipfile

import dataset
import labels


class Unusable(Exception):
    """What was given cannot become a data set; the message says why."""


def placed(name):
    """``SynthText/8/a_1_0.jpg`` -> ``8/a_1_0.jpg``: the folder and the file, whatever is above."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if len(parts) < 2 or ".." in parts:
        return None
    return "/".join(parts[-2:])


def label_name(name):
    """Where upstream looks for the labels of an image: ``a.txt`` and ``a.jpg.txt`` become that."""
    target = placed(name)
    if target is None or not target.endswith(".txt"):
        return None
    stem = target[: -len(".txt")]
    return (stem if stem.endswith(".jpg") else stem + ".jpg") + ".txt"


def unpack(archive, folder, chosen):
    """Unpack the entries that ``chosen`` gives a place to; a file that is whole is not written again."""
    with zipfile.ZipFile(archive) as source:
        wanted = [(entry, chosen(entry.filename)) for entry in source.infolist()]
        wanted = [(entry, place) for entry, place in wanted if place and not is_there(folder, place, entry)]
        ensure_space(sum(entry.file_size for entry, _ in wanted), folder)
        for index, (entry, place) in enumerate(wanted, 1):
            with source.open(entry) as stream:
                write(os.path.join(folder, place), stream)
            if index % 10000 == 0:
                print("unpacked: {} of {}".format(index, len(wanted)))
    return len(wanted)


def is_there(folder, place, entry):
    path = os.path.join(folder, place)
    return os.path.isfile(path) and os.path.getsize(path) == entry.file_size


def ensure_space(needed, folder):
    """Before the first byte is written: unpacked, SynthText is some 40 GB."""
    existing = os.path.abspath(folder)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise Unusable(
            "{}: {:.1f} GB are to be unpacked here, {:.1f} GB are free".format(
                folder, needed / 1e9, free / 1e9
            )
        )


def write(path, stream):
    """Write beside the file and rename: a file that is there is whole."""
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path))
    with open(path + ".part", "wb") as target:
        shutil.copyfileobj(stream, target)
    os.rename(path + ".part", path)


def image_place(name):
    target = placed(name)
    return target if target and target.endswith(".jpg") else None


def images(source, folder):
    """Unpack the archive, or take the files of the folder that holds the numbered ones."""
    if not os.path.isdir(source):
        print("unpacked: {} images".format(unpack(source, folder, image_place)))
        return
    found = list(files(source, image_place))
    for path, place in found:
        dataset.bring(path, os.path.join(folder, place))
    print("taken: {} images".format(len(found)))


def files(source, chosen):
    """Yield (path, place) of the files below a folder that ``chosen`` gives a place to."""
    for above, _, names in os.walk(source):
        for name in sorted(names):
            place = chosen(os.path.join(os.path.basename(above), name))
            if place:
                yield os.path.join(above, name), place


def copied_labels(source, folder):
    """Take the files of the author's archive, or of a folder, under the names upstream opens."""
    if not os.path.isdir(source):
        print("unpacked: {} label files".format(unpack(source, folder, label_name)))
        return
    found = list(files(source, label_name))
    for path, place in found:
        dataset.bring(path, os.path.join(folder, place))
    print("taken: {} label files".format(len(found)))


def converted_labels(index, folder):
    """Write labels from SynthText's own index."""
    from scipy.io import loadmat

    table = loadmat(index, variable_names=["imnames", "wordBB", "charBB", "txt"])
    rows = zip(table["imnames"][0], table["wordBB"][0], table["charBB"][0], table["txt"][0])
    for image, word_boxes, char_boxes, texts in rows:
        name = str(image[0])
        try:
            words = convert(word_boxes, char_boxes, texts)
        except Unusable as error:
            print("left out: {}: {}".format(name, error))
            continue
        text = "".join("{}\n".format(word) for word in words)
        write(os.path.join(folder, name + ".txt"), io.BytesIO(text.encode("utf-8")))


def convert(word_boxes, char_boxes, texts):
    """One image of the index: (2, 4, words) and (2, 4, characters) coordinates, and its texts.

    A text holds several words apart by white space; characters are counted without it.
    """
    spelled = [word for text in texts for word in text.split()]
    word_quads, char_quads = quads(word_boxes), quads(char_boxes)
    if len(spelled) != len(word_quads) or sum(map(len, spelled)) != len(char_quads):
        raise Unusable(
            "{} words and {} characters, but {} and {} boxes".format(
                len(spelled), sum(map(len, spelled)), len(word_quads), len(char_quads)
            )
        )
    words = []
    for text, quad in zip(spelled, word_quads):
        groups = [(char_quads.pop(0), char) for char in text]
        words.append(labels.mend(labels.Word(quad, text, groups), "grouped"))
    return words


def quads(boxes):
    """(2, 4, n) or, for one, (2, 4) coordinates -> n lists x1, y1, ..., x4, y4, as written."""
    xs, ys = boxes
    if not hasattr(xs[0], "__len__"):
        xs, ys = [[x] for x in xs], [[y] for y in ys]
    return [
        [str(int(round(float(value)))) for corner in range(4) for value in (xs[corner][n], ys[corner][n])]
        for n in range(len(xs[0]))
    ]


def write_list(folder):
    """Name the images that have labels, in order."""
    found, missing = [], 0
    for above, _, names in sorted(os.walk(os.path.join(folder, "train_gts"))):
        for name in sorted(names):
            image = os.path.join(os.path.basename(above), name[: -len(".txt")])
            if os.path.isfile(os.path.join(folder, "train_images", image)):
                found.append(image)
            else:
                missing += 1
    if not found:
        raise Unusable("{}: none of the images has labels".format(folder))
    text = "".join("{}\n".format(image) for image in found)
    write(os.path.join(folder, "train_list.txt"), io.BytesIO(text.encode("utf-8")))
    print("listed: {} images; {} label files have no image".format(len(found), missing))
    return len(found)


def own_index(archive, folder):
    """Unpack gt.mat beside the labels and return its path."""
    path = os.path.join(folder, "gt.mat")
    if os.path.isdir(archive):
        path = os.path.join(archive, "gt.mat")
    else:
        unpack(archive, folder, lambda name: "gt.mat" if name.endswith("/gt.mat") else None)
    if not os.path.isfile(path):
        raise Unusable("{}: no gt.mat is in it, and no labels are beside it".format(archive))
    return path


def first_of(source, names):
    """The first of these that lies in ``source``; None if none does."""
    paths = (os.path.join(source, name) for name in names)
    return next((path for path in paths if os.path.exists(path)), None)


def lay_out(source, data):
    folder = os.path.join(data, "synthtext")
    target = os.path.join(folder, "train_gts")
    os.makedirs(target, exist_ok=True)
    pictures = first_of(source, ["SynthText.zip", "SynthText"])
    if pictures is None:
        raise Unusable("{}: neither SynthText.zip nor a folder SynthText is there".format(source))
    images(pictures, os.path.join(folder, "train_images"))
    given = first_of(source, ["labels.zip", "labels"])
    if given:
        copied_labels(given, target)
    else:
        converted_labels(own_index(pictures, folder), target)
    return write_list(folder)


def main(arguments):
    source, data = arguments
    try:
        print('data: {{"items": {}}}'.format(lay_out(source, data)))
    except Unusable as error:
        print("fault: {}".format(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
