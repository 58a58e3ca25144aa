import os
import numpy as np


class Icdar(object):
    def __init__(self, folder, names):
        self.paths = [os.path.join(folder, name + '.txt') for name in names]

    def words(self):
        """The number of words of each picture, and with each the corners of its characters."""
        charsboxes, counts = [], []
        for path in self.paths:
            with open(path) as labels:
                lines = labels.readlines()
            counts.append(len(lines))
            for line in lines:
                parts = self.parts(line)
                charbbs, charbb = [], np.zeros(9)
                if len(parts) > 9:
                    for first in range(9, len(parts), 9):
                        charbb[:8] = [float(each) for each in parts[first:first + 8]]
                        charbbs.append(charbb.copy())
                    charsboxes.append(charbbs)
        return counts, charsboxes

    def parts(self, line):
        parts = line.strip().split(',', 8)
        [float(each) for each in parts[:8]]
        return parts
