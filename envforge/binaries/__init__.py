"""Which cards a CUDA binary can run on, read from the machine code inside it.

``fatbin`` and ``elf`` parse bytes, ``names`` finds kernel names, ``role`` says whose kernels they
are, ``library`` reads one file, ``subject`` a wheel or a directory, ``interpreter`` the packages of
a Python, ``verdict`` judges for a card, ``kernels`` lists the kernels of a file, ``difference``
compares two subjects.
The two rules of what runs where are not here: ``envforge.values``.
"""

from __future__ import annotations
