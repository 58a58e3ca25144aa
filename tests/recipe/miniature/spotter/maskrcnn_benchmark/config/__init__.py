"""Key paths and values, as they come on the command line; upstream has yacs for it."""


def merged(words):
    return dict(zip(words[::2], words[1::2]))
