"""Read the devices anew from a copy of pci.ids.

    python scripts/refresh_devices.py /usr/share/misc/pci.ids

Rewrites ``envforge/capability/data/devices.yaml``: every function of NVIDIA whose name begins with
a chip that ``architectures.yaml`` gives a compute capability, unless the name says that it is the
chip's audio, USB or bridge. Names the chips that look new: they belong into ``architectures.yaml``
first. Debian's package ``pci.ids`` carries the file; https://pci-ids.ucw.cz/ publishes it daily.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from format_data import dump, head_of, plain

from envforge.capability.models import Device
from envforge.capability.tables import DATA, DeviceTable, read_table

TARGET = DATA / "devices.yaml"
NVIDIA = "10de"
_DEVICE = re.compile(r"\t([0-9a-f]{4})  (.+)")
_VERSION = re.compile(r"#\s*Version:\s*([\d.]+)")
_NO_GPU = re.compile(
    r"Audio|USB|UCSI|[Bb]ridge|Controller|SMBus|\bIDE\b|Ethernet|NVSwitch|\[nForce[^\]]*SLI\]"
)
"""What else a chip's name stands before: 139 functions of NVIDIA in 2026."""
_SUFFIX = re.compile(r"(?:B?GLM?|B?M)\Z")
"""Mobile and workstation editions have the chip's own capability."""
_SPELLED = {"GT200b": "GT200", "GK110BGL": "GK110B"}
_MODERN = re.compile(r"(?:G[FKMPVABHR]|TU|AD)\d{2,3}")


def main(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    chips = {
        chip: row.compute_capability
        for row in read_table(DATA / "architectures.yaml")
        for chip in row.chips
    }
    functions = dict(functions_of(text.splitlines()))
    devices = [device for item in functions.items() if (device := device_of(*item, chips))]
    before = read_table(TARGET)
    table = DeviceTable(
        source=re.sub(r"\d{4}\.\d{2}\.\d{2}", version_of(text), before.source),
        evidence=before.evidence,
        devices=tuple(sorted(devices, key=lambda device: device.id)),
    )
    head = head_of(TARGET.read_text(encoding="utf-8"))
    TARGET.write_text(head + dump(plain(table, head=True)), encoding="utf-8")
    report(before.devices, table.devices)
    for name in sorted(unknown(functions.values(), chips)):
        print(f"not in architectures.yaml: {name}")


def functions_of(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    vendor = ""
    for line in lines:
        if line and line[0] not in "\t#":
            vendor = line[:4]
        elif vendor == NVIDIA and (match := _DEVICE.match(line)):
            yield match[1], match[2]


def version_of(text: str) -> str:
    match = _VERSION.search(text)
    if match is None:
        raise SystemExit("this file names no version: is it pci.ids?")
    return match[1]


def device_of(device_id: str, name: str, chips: dict[str, str]) -> Device | None:
    chip = chip_of(name, chips)
    if chip is None or _NO_GPU.search(name):
        return None
    return Device(device_id, chip, chips[chip], name)


def chip_of(name: str, chips: dict[str, str]) -> str | None:
    word = name.split(maxsplit=1)[0]
    word = _SPELLED.get(word, word)
    for chip in (word, _SUFFIX.sub("", word)):
        if chip in chips:
            return chip
    return None


def unknown(names: Iterable[str], chips: dict[str, str]) -> set[str]:
    return {
        name
        for name in names
        if _MODERN.match(name) and not _NO_GPU.search(name) and chip_of(name, chips) is None
    }


def report(before: Iterable[Device], after: Iterable[Device]) -> None:
    old, new = ({device.id: device for device in devices} for devices in (before, after))
    for sign, ids in (("-", old.keys() - new.keys()), ("+", new.keys() - old.keys())):
        for device_id in sorted(ids):
            print(sign, device_id, {**old, **new}[device_id].name)
    changed = [i for i in old.keys() & new.keys() if old[i] != new[i]]
    print(f"{len(new)} devices, {len(changed)} of them changed")


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 -- the one argument
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
