"""Run inside the build: which packages and libraries does what was built need at run time?

    python3 runtime_files.py SITE RUNTIME [PACKAGE ...]

SITE may be several folders, ``A:B``. Every shared library below SITE is asked what it is linked
with. What a package of the distribution owns is named in RUNTIME/packages.txt, after the PACKAGEs
given; what none owns (a toolkit that came as a runfile) is copied into RUNTIME/libraries. The
driver's own library is left out: it comes from the host. Every package that is here, the compilers
too, is listed with its version in RUNTIME/built_with.txt. Ends with 1 and names the library when
something else is missing.
"""

import os
import re
import shutil
import subprocess
import sys

FROM_THE_HOST = re.compile(r"libcuda\.so|libnvidia-")
LINE = re.compile(r"\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$")


def shared_libraries(folder):
    """Yield every ELF file below ``folder``."""
    for path, _folders, names in os.walk(folder):
        for name in sorted(names):
            full = os.path.join(path, name)
            with open(full, "rb") as stream:
                if stream.read(4) == b"\x7fELF":
                    yield full


def linked(library):
    """Return ``{soname: path}`` of what a library is linked with, ``not found`` included."""
    answer = subprocess.run(
        ["ldd", library], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = answer.stdout.decode("utf-8", "replace").splitlines()
    return {match.group(1): match.group(2) for match in map(LINE.match, lines) if match}


def owner(path):
    """Name the package that owns ``path``; None where none does."""
    real = os.path.realpath(path)
    # Since /lib is a link to /usr/lib, a package may know its file by either name.
    for name in (real, real.replace("/usr/lib/", "/lib/", 1), "/usr" + real):
        answer = subprocess.run(
            ["dpkg-query", "--search", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=False,
        )
        if answer.returncode == 0:
            return answer.stdout.decode().splitlines()[0].rsplit(": ", 1)[0].split(":")[0]
    return None


def installed():
    """Return ``name:architecture=version`` of every package that is here, sorted."""
    row = "${db:Status-Abbrev}${Package}:${Architecture}=${Version}\\n"
    answer = subprocess.check_output(["dpkg-query", "--show", "--showformat", row])
    lines = answer.decode().splitlines()
    return sorted(line[3:] for line in lines if line.startswith("ii"))


def with_its_parts(path):
    """Yield a library and those of its folder that it opens itself: ``libcudnn_ops_infer.so.8``."""
    folder, name = os.path.split(path)
    stem = name.split(".so")[0]
    yield path
    for other in sorted(os.listdir(folder)):
        if ".so" in other and other.startswith((stem + "_", stem + "-")):
            yield os.path.join(folder, other)


def collect(sites):
    """Return packages, unowned libraries ``{soname: path}``, and what is missing."""
    needed, own = {}, set()
    for site in sites:
        for library in shared_libraries(site):
            own.add(os.path.basename(library))
            needed.update(linked(library))
    packages, unowned, missing = set(), {}, []
    for soname, path in sorted(needed.items()):
        if FROM_THE_HOST.match(soname) or path.startswith(tuple(site + os.sep for site in sites)):
            continue
        if path == "not found":
            # An extension finds torch's libraries because torch was imported before it.
            if soname not in own:
                missing.append(soname)
            continue
        package = owner(path)
        if package:
            packages.add(package)
        else:
            unowned[soname] = path
    return packages, unowned, missing


def main(arguments):
    """Write ``packages.txt`` and ``libraries`` below RUNTIME; return the exit code."""
    site, runtime = arguments[:2]
    packages, unowned, missing = collect(site.split(os.pathsep))
    if missing:
        sys.stderr.write("linked with what is not here: {}\n".format(" ".join(missing)))
        return 1
    libraries = os.path.join(runtime, "libraries")
    os.makedirs(libraries)
    for path in unowned.values():
        for part in with_its_parts(path):
            shutil.copy2(part, os.path.join(libraries, os.path.basename(part)))
    wanted = sorted(packages.union(arguments[2:]))
    for name, lines in (("packages.txt", wanted), ("built_with.txt", installed())):
        with open(os.path.join(runtime, name), "w") as stream:
            stream.write("".join(line + "\n" for line in lines))
    sys.stdout.write("runtime packages: {}\n".format(" ".join(wanted)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
