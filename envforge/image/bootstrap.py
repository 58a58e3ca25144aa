"""The base system every plan starts from: a distribution's own signed archive, by mmdebstrap.

No image registry is asked: the base is an archive's state (its Release file), and the same state
gives the same bytes. What is recorded of it is that state and the list of packages, never the
address it came from, which may be a company's own mirror.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from envforge.assets import BASE_DOCKERFILE
from envforge.capability.models import Platform
from envforge.errors import BuildFailed, DiskFull, EngineUnavailable, EnvforgeError, SourceError
from envforge.events import Event, OnEvent, ignore
from envforge.image.base import INCLUDED, VARIANT, base_tag
from envforge.image.engine import Build, Engine, label_json
from envforge.sources.archive import FoundArchive, Release, find_archive
from envforge.sources.child import lines_of, spawn
from envforge.sources.store import Store, hash_file

_PREFIX = "envforge.base."
_TERM_GRACE_S = 60.0
"""mmdebstrap unmounts and removes its own temporary root when asked to end; let it."""
_TAIL_LINES = 15
_PHASE = re.compile(r"I: (.+)\Z")
_PHASES_SHOWN = re.compile(
    r"running apt-get update|downloading packages|extracting archives|installing essential"
    r"|installing remaining|cleaning package lists|creating tarball"
)
_UNREACHABLE = re.compile(r"Failed to fetch|Could not resolve|Could not connect|Unable to connect")
_UNTRUSTED = re.compile(
    r"NO_PUBKEY|is not signed|EXPKEYSIG|KEYEXPIRED|signatures couldn't be verified"
)


class Base(NamedTuple):
    """A base system to have, and how its archive is reached."""

    platform: Platform
    archive: str | None = None
    """The address the user stated, if any."""
    source: FoundArchive | None = None
    """The state to make it of; None: the one that answers now."""
    recording: str = ""
    """Of a throw-away base: its name, and what makes it another one than every other, so that no
    step on top of it is taken from the builder's cache."""

    @property
    def tag(self) -> str:
        """The image's name."""
        return f"envforge/recording:{self.recording}" if self.recording else base_tag(self.platform)


class BaseImage(NamedTuple):
    """A base image in the engine, and the archive state it is made of."""

    tag: str
    id: str
    suite: str
    releases: tuple[Release, ...]
    packages_sha256: str
    """Of the sorted lines ``name:architecture=version`` of every installed package."""
    rootfs_sha256: str
    """Of the bootstrapped archive. Another mirror, another hash: ``sources.list`` names it."""
    created: bool
    """False: the engine had it already."""


def ensure_base(
    engine: Engine,
    base: Base,
    store: Store,
    *,
    log: Path,
    on_event: OnEvent = ignore,
) -> BaseImage:
    """Return the platform's base image, bootstrapping it where the engine does not have it.

    One of another state than ``base.source`` is made anew. Raises EngineUnavailable (no
    mmdebstrap), SourceError (no archive or keyring), BuildFailed. Nothing half-made is left: the
    tag appears when the image is complete.
    """
    platform, tag = base.platform, base.tag
    with store.locked(tag, on_event):
        found = find_base(engine, platform, tag)
        if found is not None and _is_of(found, base.source):
            return found
        _check_tool(platform)
        if base.source is None:
            store.expect_network(f"the base system {platform.name}")
        source = base.source or find_archive(platform, base.archive, on_event)
        _check_keyring(platform)
        with store.workspace() as context:
            rootfs = context / "rootfs.tar"
            bootstrap(platform, source, rootfs, log=log, on_event=on_event)
            if base.source is None:
                _expect_unchanged(platform, source)
            labels = _labels(source, rootfs)
            _write_dockerfile(base, context)
            engine.build(Build(context, tag, labels=labels), log=log, on_event=on_event)
        made = find_base(engine, platform, tag)
    if made is None:
        raise BuildFailed(f"the engine lost {tag} right after it was built", hint=str(log))
    return made._replace(created=True)


def _write_dockerfile(base: Base, context: Path) -> None:
    text = BASE_DOCKERFILE.read_text(encoding="utf-8")
    if base.recording:
        (context / "recording").write_text(base.recording, encoding="utf-8")
        text += "COPY recording /\n"
    (context / "Dockerfile").write_text(text, encoding="utf-8")


def _is_of(found: BaseImage, source: FoundArchive | None) -> bool:
    """Tell whether a base is of this state: its Release files are, whatever expired since."""
    if source is None:
        return True
    return {(release.suite, release.sha256) for release in found.releases} == {
        (release.suite, release.sha256) for release in source.releases
    }


def find_base(engine: Engine, platform: Platform, tag: str | None = None) -> BaseImage | None:
    """Return the platform's base image if the engine has it; its labels hold the record."""
    tag = tag or base_tag(platform)
    image = engine.image(tag)
    if image is None or f"{_PREFIX}releases" not in image.labels:
        return None
    return BaseImage(
        tag=tag,
        id=image.id,
        suite=platform.suite,
        releases=_read_releases(image.labels),
        packages_sha256=image.labels[f"{_PREFIX}packages-sha256"],
        rootfs_sha256=image.labels[f"{_PREFIX}rootfs-sha256"],
        created=False,
    )


def _labels(source: FoundArchive, rootfs: Path) -> dict[str, str]:
    packages = "".join(f"{line}\n" for line in installed_packages(rootfs))
    return {
        f"{_PREFIX}releases": label_json(source.releases),
        f"{_PREFIX}packages-sha256": hashlib.sha256(packages.encode()).hexdigest(),
        f"{_PREFIX}rootfs-sha256": hash_file(rootfs),
    }


def _read_releases(labels: Mapping[str, str]) -> tuple[Release, ...]:
    return msgspec.json.decode(labels[f"{_PREFIX}releases"], type=tuple[Release, ...])


def _check_tool(platform: Platform) -> None:
    if shutil.which("mmdebstrap") is None:
        raise EngineUnavailable(
            "mmdebstrap, which makes base systems, is not installed",
            because=(f"{platform.name} is bootstrapped from its distribution's own archive",),
            hint="sudo apt-get install mmdebstrap   (or add --install-engine)",
        )


def _check_keyring(platform: Platform) -> None:
    if not Path(platform.archive.keyring).is_file():
        raise SourceError(
            f"the keys that sign {platform.distribution}'s archive are not on this machine",
            because=(f"{platform.archive.keyring} does not exist",),
            hint=f"sudo apt-get install {platform.archive.keyring_package}   "
            "(where this system has no such package: a newer release's; it depends on nothing)",
        )


def bootstrap(
    platform: Platform,
    source: FoundArchive,
    rootfs: Path,
    *,
    log: Path,
    on_event: OnEvent = ignore,
) -> None:
    """Write the platform's root file system to ``rootfs``, an uncompressed archive.

    Raises SourceError (archive out of reach, signature not trusted) or BuildFailed with the end
    of mmdebstrap's output. ``rootfs`` is not there unless it is whole.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    argv = _argv(platform, source)
    # The archive's own date: two bootstraps of one state then differ in no byte.
    epoch = str(max(release.timestamp for release in source.releases))
    env = {**_reaching(source.proxy), "SOURCE_DATE_EPOCH": epoch, "LC_ALL": "C.UTF-8"}
    try:
        with rootfs.open("wb") as target, log.open("a", encoding="utf-8", buffering=1) as record:
            record.write(f"$ {' '.join(argv)}\n")
            # The archive comes over standard output: as a plain user mmdebstrap writes as another
            # uid, which may not reach into this user's cache.
            with spawn(argv, env=env, stdout=target, grace_s=_TERM_GRACE_S) as process:
                for line in lines_of(process):
                    record.write(line + "\n")
                    said.append(line)
                    _report(line, on_event)
        if process.returncode != 0:
            raise _failure(platform, source, said, log)
    except BaseException as error:
        rootfs.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BuildFailed(
                f"cannot bootstrap {platform.name}", because=(str(error),), hint=str(log)
            ) from error
        raise
    on_event(Event("done", f"bootstrapped {platform.name}"))


def _reaching(proxy: str | None) -> dict[str, str]:
    """Return the environment in which apt takes that proxy, and no other.

    ``--aptopt`` would stay in the base, and with it the address of this machine.
    """
    if proxy is None:
        return dict(os.environ)
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    return {**kept, "http_proxy": proxy}


def _argv(platform: Platform, source: FoundArchive) -> list[str]:
    components = " ".join(platform.archive.components)
    # mmdebstrap adds signed-by itself where apt inside the base would not trust the key.
    lines = [f"deb {source.address} {release.suite} {components}" for release in source.releases]
    frozen = any(release.expired for release in source.releases)
    return [
        "mmdebstrap",
        f"--variant={VARIANT}",
        f"--include={','.join(INCLUDED[platform.distribution])}",
        f"--keyring={platform.archive.keyring}",
        "--format=tar",
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if frozen else []),
        platform.suite,
        "-",
        *lines,
    ]


def _report(line: str, on_event: OnEvent) -> None:
    phase = _PHASE.match(line)
    if phase and _PHASES_SHOWN.match(phase[1]):
        on_event(Event("step", phase[1].rstrip(".")))
    else:
        on_event(Event("log", line))


def _failure(platform: Platform, source: FoundArchive, said: list[str], log: Path) -> EnvforgeError:
    text, tail = "\n".join(said), tuple(said[-_TAIL_LINES:])
    if os.strerror(errno.ENOSPC) in text:
        return DiskFull.here(*tail)
    what = f"cannot bootstrap {platform.name}"
    if _UNTRUSTED.search(text):
        return SourceError(
            f"{what}: the signature of {source.address} is not trusted",
            because=tail,
            hint=f"sudo apt-get install --only-upgrade {platform.archive.keyring_package}"
            f"   (keys: {platform.archive.keyring}; the whole log: {log})",
        )
    if _UNREACHABLE.search(text):
        return SourceError(
            f"{what}: {source.address} is out of reach or incomplete",
            because=tail,
            hint=f"try again, or name another archive; the whole log: {log}",
        )
    return BuildFailed(what, because=tail, hint=f"the whole log: {log}")


def _expect_unchanged(platform: Platform, source: FoundArchive) -> None:
    """A state that changed on the way would be recorded wrongly; rare, so simply said."""
    if find_archive(platform, source.address).releases != source.releases:
        raise SourceError(
            f"{source.address} was updated while {platform.name} was bootstrapped from it",
            hint="run the same command again",
        )


def installed_packages(rootfs: Path) -> tuple[str, ...]:
    r"""Return ``name:architecture=version`` of every package in a root file system, sorted.

    The same as ``dpkg-query -W -f '${Package}:${Architecture}=${Version}\n' | LC_ALL=C sort``
    inside it.
    """
    with tarfile.open(rootfs, "r:") as archive:
        member = next(
            (entry for entry in archive if entry.name.lstrip("./") == "var/lib/dpkg/status"), None
        )
        status = archive.extractfile(member) if member is not None else None
        if status is None:
            raise BuildFailed("mmdebstrap made a root file system without a package list")
        text = status.read().decode("utf-8", errors="replace")
    return tuple(sorted(_packages(text)))


def _packages(status: str) -> Iterator[str]:
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in stanza.splitlines()
            if ": " in line and not line.startswith(" ")
        )
        if fields.get("Status", "").endswith(" installed"):
            yield f"{fields['Package']}:{fields['Architecture']}={fields['Version']}"
