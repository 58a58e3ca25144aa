"""What the interpreter that will train has: asked inside the container, or of the local Python.

    survey_program.py {"modules": [...], "imports": [...], "below": DIR, "first": DIR}

Says one line, ``envforge-survey {json}``. ``modules`` must import; ``imports`` must import and lie
below ``below``; ``first`` is the folder Python puts first for the training's script. Runs on
Python 2.7 too; it imports nothing of envforge.
"""

from __future__ import print_function

import importlib
import json
import os
import sys
import sysconfig


def python_tag():
    version = "cp%d%d" % sys.version_info[:2]
    if sys.version_info[0] == 2:
        return "%s-%sm%s" % (version, version, "u" if sys.maxunicode > 0xFFFF else "")
    abi = (sysconfig.get_config_var("SOABI") or "").split("-")
    return "%s-%s" % (version, "cp" + abi[1] if len(abi) > 1 else version)


def fault_of(name):
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a package raises at import keeps the training from it
        return "%s: %s" % (type(error).__name__, error)
    return ""


def place_of(name):
    """The folder or file of a module, None for one without."""
    module = sys.modules[name]
    path = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return os.path.realpath(path) if path else None


def imports(names, below):
    """{name: why it is not upstream's own}."""
    faults = {}
    below = os.path.join(os.path.realpath(below), "")
    for name in names:
        fault = fault_of(name)
        if not fault and not (place_of(name) or "").startswith(below):
            fault = "resolves to %s" % place_of(name)
        if fault:
            faults[name] = fault
    return faults


def card():
    """(name, total MiB, compute capability) of the first card, None where torch can use none."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    capability = "%d.%d" % torch.cuda.get_device_capability(0)
    return [properties.name, properties.total_memory // 2**20, capability]


def main(wanted):
    if wanted.get("first"):
        sys.path[0] = wanted["first"]
    import torch

    faults = {name: fault_of(name) for name in wanted.get("modules", [])}
    said = {
        "tag": python_tag(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "torch": str(torch.__version__),
        "card": card() if wanted.get("card") else None,
        "missing": {name: fault for name, fault in faults.items() if fault},
        "astray": imports(wanted.get("imports", []), wanted.get("below", "")),
    }
    print("\nenvforge-survey " + json.dumps(said))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
