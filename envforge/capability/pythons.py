"""CPython's own sources, for platforms whose archive has not the Python. Decoded on demand.

Annotations are native, as in :mod:`envforge.capability.models`.
"""

from typing import TYPE_CHECKING, Annotated

import msgspec

from envforge.capability.models import Fact, PlatformPython, Sha256, Text, Version
from envforge.capability.profiles import PoolPath

if TYPE_CHECKING:
    from envforge.capability.database import Database

PREFIX = "/opt/python"
"""Where it is installed in an image: the distribution's own stays what ``python3`` means."""


class PythonSource(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sources of one Python: one patch release."""

    version: Version
    """As it is asked for: ``3.9``."""
    release: Version
    wheel_tag: Text
    url: Text
    sha256: Sha256
    pool: PoolPath | None = None
    """Where a distribution's archive carries the same bytes."""
    configure: tuple[Text, ...] = ()
    """What only this one's ``configure`` is given."""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]


class PythonTable(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``pythons.yaml``."""

    packages: tuple[Text, ...]
    """What the modules of the standard library are compiled against."""
    configure: tuple[Text, ...]
    modules: tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")], ...]
    """Modules that are silently left out where a library is missing: they must be there."""
    versions: tuple[PythonSource, ...]
    """In the order they are tried."""


def python_source_of(database: "Database", version: str) -> PythonSource:
    """Return the sources of ``3.9``; the resolver names none that are not in the data."""
    return next(row for row in database.pythons.versions if row.version == version)


def built_python(database: "Database", source: PythonSource) -> PlatformPython:
    """Describe what its build makes, as a platform describes a Python of its archive."""
    return PlatformPython(
        version=source.version,
        wheel_tag=source.wheel_tag,
        executable=f"{PREFIX}/bin/python{source.version}",
        site_packages=f"{PREFIX}/lib/python{source.version}/site-packages",
        packages=(),  # its libraries are found where the runtime's are
        devel_packages=database.pythons.packages,
    )
