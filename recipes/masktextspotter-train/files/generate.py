"""Draw a small data set in SynthText's form, so that a training can be tried with no download.

    python generate.py DATA --images 40 --test-images 4 --seed 1

Words of digits and letters, tilted, in many sizes and colours, on a background of blocks; a
quadrilateral for each word and for each character. The test set has icdar2013's form, with the
transcription that stops upstream's first parser: ``$5,000``. The glyphs are in this file and all
choices are made with integers of one seed, so the labels are the same bytes everywhere.

Runs on Python 3.5 and later; needs Pillow, which upstream needs.
"""
import argparse
import io
import os
import sys

from PIL import Image, ImageDraw

# Five columns of seven bits for each glyph, the lowest bit on top.
GLYPHS = {
    "0": "3e5149453e", "1": "00427f4000", "2": "4261514946", "3": "2141454b31", "4": "1814127f10",
    "5": "2745454539", "6": "3c4a494930", "7": "0171090503", "8": "3649494936", "9": "064949291e",
    "a": "7e1111117e", "b": "7f49494936", "c": "3e41414122", "d": "7f4141221c", "e": "7f49494941",
    "f": "7f09090901", "g": "3e4149497a", "h": "7f0808087f", "i": "00417f4100", "j": "2040413f01",
    "k": "7f08142241", "l": "7f40404040", "m": "7f020c027f", "n": "7f0408107f", "o": "3e4141413e",
    "p": "7f09090906", "q": "3e4151215e", "r": "7f09192946", "s": "4649494931", "t": "01017f0101",
    "u": "3f4040403f", "v": "1f2040201f", "w": "3f4038403f", "x": "6314081463", "y": "0708700807",
    "z": "6151494543", "$": "242a7f2a12", ",": "0050300000",
}  # fmt: skip
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
SLOPES = (-3, -2, -1, 0, 0, 1, 2, 3)  # sixteenths: at most about ten degrees


class Dice(object):
    """Park and Miller's generator: integers only, so every Python draws the same numbers."""

    def __init__(self, seed):
        self.state = seed % 2147483646 + 1
        for _ in range(8):  # small seeds begin alike
            self.below(2)

    def below(self, limit):
        self.state = self.state * 48271 % 2147483647
        return self.state % limit

    def between(self, low, high):
        return low + self.below(high - low + 1)


class Placed(object):
    """A word on the image: position, size of a glyph's dot in pixels, slope in sixteenths."""

    def __init__(self, text, x, y, dot, slope):
        self.text, self.x, self.y, self.dot, self.slope = text, x, y, dot, slope

    def corners(self, left, top, right, bottom):
        """The corners of a rectangle of dots, tilted: clockwise from the top left, in pixels."""
        return [self._point(c, r) for c, r in ((left, top), (right, top), (right, bottom), (left, bottom))]

    def _point(self, column, row):
        x, y = column * self.dot, row * self.dot
        return self.x + x - y * self.slope // 16, self.y + y + x * self.slope // 16

    def quad(self):
        return self.corners(-1, -1, 6 * len(self.text), 8)

    def glyph_quad(self, index):
        return self.corners(6 * index, 0, 6 * index + 5, 7)

    def fits(self, width, height):
        return all(2 <= x < width - 2 and 2 <= y < height - 2 for x, y in self.quad())

    def clear_of(self, others):
        return not any(_overlap(_bounds(self.quad()), _bounds(other.quad())) for other in others)

    def label(self, with_characters):
        groups = [self.quad()]
        texts = [self.text]
        if with_characters:
            groups += [self.glyph_quad(index) for index in range(len(self.text))]
            texts += list(self.text)
        return ",".join(
            "{},{}".format(",".join("{},{}".format(x, y) for x, y in quad), text)
            for quad, text in zip(groups, texts)
        )


def _bounds(quad):
    xs, ys = [x for x, _ in quad], [y for _, y in quad]
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(a, b):
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def place(dice, text, others, width, height):
    """Find room for a word; None after twenty tries."""
    for _ in range(20):
        dot = dice.between(2, max(2, height // 60))
        word = Placed(text, dice.below(width), dice.below(height), dot, SLOPES[dice.below(len(SLOPES))])
        if word.fits(width, height) and word.clear_of(others):
            return word
    return None


def background(dice, width, height):
    image = Image.new("RGB", (width, height), tuple(dice.between(90, 160) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        x, y = dice.below(width), dice.below(height)
        colour = tuple(dice.between(80, 170) for _ in range(3))
        draw.rectangle([x, y, x + dice.between(8, width // 3), y + dice.between(8, height // 3)], fill=colour)
    return image


def paint(image, dice, word):
    """Light or dark, so that it stands out from the greys behind it."""
    draw = ImageDraw.Draw(image)
    base = dice.below(2) * 215
    colour = tuple(base + dice.below(41) for _ in range(3))
    for index, char in enumerate(word.text):
        for column in range(5):
            bits = int(GLYPHS[char][2 * column:2 * column + 2], 16)
            for row in range(7):
                if bits >> row & 1:
                    left = 6 * index + column
                    draw.polygon(word.corners(left, row, left + 1, row + 1), fill=colour)


def draw_image(dice, width, height, texts):
    image = background(dice, width, height)
    words = []
    for text in texts:
        word = place(dice, text, words, width, height)
        if word is not None:
            paint(image, dice, word)
            words.append(word)
    return image, words


def spelled(dice, count):
    return ["".join(LETTERS[dice.below(36)] for _ in range(dice.between(2, 7))) for _ in range(count)]


def drawn_with_words(dice, options, texts):
    """An image on which at least one word found room."""
    while True:
        image, words = draw_image(dice, options.width, options.height, texts)
        if words:
            return image, words


def write(folder, images, gts, name, image, lines):
    for part in (images, gts):
        target = os.path.dirname(os.path.join(folder, part, name))
        if not os.path.isdir(target):
            os.makedirs(target)
    image.save(os.path.join(folder, images, name), "JPEG", quality=92)
    with io.open(os.path.join(folder, gts, name + ".txt"), "w", encoding="utf-8") as stream:
        stream.write("".join("{}\n".format(line) for line in lines))


def synthtext(dice, folder, options):
    listed = []
    for index in range(options.images):
        image, words = drawn_with_words(dice, options, spelled(dice, options.words))
        name = "{}/drawn_{:05d}.jpg".format(index // 100 + 1, index)
        write(folder, "train_images", "train_gts", name, image, [w.label(True) for w in words])
        listed.append(name)
    with io.open(os.path.join(folder, "train_list.txt"), "w", encoding="utf-8") as stream:
        stream.write("".join("{}\n".format(name) for name in listed))


def icdar2013(dice, folder, options):
    for index in range(options.test_images):
        texts = (["$5,000"] if index == 0 else []) + spelled(dice, options.words)
        image, words = drawn_with_words(dice, options, texts)
        lines = [word.label(False) for word in words]
        write(folder, "test_images", "test_gts", "img_{}.jpg".format(index + 1), image, lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--test-images", type=int, default=4)
    parser.add_argument("--words", type=int, default=8, help="tried for each image; SynthText has 8.5")
    parser.add_argument("--width", type=int, default=600, help="as most of SynthText")
    parser.add_argument("--height", type=int, default=450)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    synthtext(Dice(options.seed), os.path.join(options.data, "synthtext"), options)
    icdar2013(Dice(options.seed + 1), os.path.join(options.data, "icdar2013"), options)
    print('data: {{"items": {}, "test_items": {}}}'.format(options.images, options.test_images))
    return 0


if __name__ == "__main__":
    sys.exit(main())
