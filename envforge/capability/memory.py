"""With how much memory a card was sold. Decoded on demand: few questions need it.

Annotations are native, as in :mod:`envforge.capability.models`.
"""

import msgspec

from envforge.capability.models import DeviceId, Fact, Text


class MemoryVariant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variant of a card, as the sources list it."""

    model: Text
    """``GeForce GTX 760 (192-bit)``: often more exact than the card's name."""
    chips: tuple[Text, ...] = ()
    """Empty where the source does not say; a name can stand for several."""
    memory_mib: tuple[int, ...]
    """Sizes it was sold with, of one GPU, ascending."""
    gpus: int = 1
    memory_type: Text
    bandwidth_gb_s: Text
    """As the source writes it; several figures belong to several sizes or types."""
    bus_bits: Text


class CardMemory(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A card by its marketing name, and the memory its variants have."""

    name: Text
    ids: tuple[DeviceId, ...] = ()
    """Empty: not on the PCI bus."""
    chips: tuple[Text, ...] = ()
    shared: bool = False
    """It computes in the system's own memory."""
    variants: tuple[MemoryVariant, ...] = ()
    notes: tuple[Text, ...] = ()
