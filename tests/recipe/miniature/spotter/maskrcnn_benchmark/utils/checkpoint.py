import os

import torch


class Checkpointer(object):
    """Everything is saved, last_checkpoint names the newest, and a start goes on with that one."""

    def __init__(self, parts, folder, say):
        self.parts, self.folder, self.say = parts, folder, say
        self.pointer = os.path.join(folder, "last_checkpoint")

    def save(self, name, **more):
        path = os.path.join(self.folder, name + ".pth")
        self.say("saving", path)
        torch.save(dict({key: part.state_dict() for key, part in self.parts.items()}, **more), path)
        with open(self.pointer, "w") as pointer:
            pointer.write(path)

    def get_checkpoint_file(self):
        with open(self.pointer) as pointer:
            return pointer.read().strip()

    def load(self, f=None, resume=True):
        if os.path.exists(self.pointer):
            f = self.get_checkpoint_file()
        if not f:
            return {}
        self.say("loading", f)
        checkpoint = torch.load(f)
        for key, part in self.parts.items():
            part.load_state_dict(checkpoint.pop(key))
            if key != "model":
                self.say(key, f)
        return checkpoint
