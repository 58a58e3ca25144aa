"""Which cards a CUDA binary can run on, read from the machine code inside it.

``fatbin`` and ``elf`` parse bytes, ``names`` finds kernel names, ``role`` says whose kernels they
are, ``library`` reads one file, ``subject`` a wheel or a directory, ``verdict`` judges for a card.
The two rules of what runs where are not here: ``envforge.values``.
"""

from __future__ import annotations
