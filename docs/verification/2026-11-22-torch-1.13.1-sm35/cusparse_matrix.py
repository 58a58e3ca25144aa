"""The clash of cusparseGetErrorString in torch 1.0.1, shown and gone, for seven CUDA releases.

    python3 cusparse_matrix.py SparseCUDABlas.cu EDIT.py CUSPARSE_H COMPILER [ARGUMENT ...]

Takes the file of v1.0.1 as it is and as patches/pytorch/series.yaml leaves it, cuts it behind its
error checks (what follows calls csrmm2, which CUDA 11 no longer has), and compiles each against
CUDA 11.8's own cusparse.h (CUSPARSE_H) with the version macros of each release; where a release
declares no such function (before 10.1.243) the declaration is taken out. The guards that upstream
used later are compiled beside it.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

# (release, CUSPARSE_VER_MAJOR, MINOR, PATCH or None before they existed, declares the function);
# sources: headers and sonames listed in pytorch pull requests 20889, 32405 and 42412, NVIDIA's
# release notes for 10.1 Update 2. 11.0's minor number is from its release notes, not a header.
RELEASES = [
    ("9.2.148", None, False),
    ("10.0.130", None, False),
    ("10.1.105", None, False),
    ("10.1.243", (10, 3, 0), True),
    ("10.2.89", (10, 3, 1), True),
    ("11.0.2", (11, 1, 0), True),
    ("11.8.89", (11, 7, 5), True),
]
GUARDS = {
    "upstream 1.2.0-1.4": "#if (!((CUSPARSE_VER_MAJOR >= 10) && (CUSPARSE_VER_MINOR >= 2)))",
    "upstream 1.5-1.6": "#if !defined(CUSPARSE_VERSION) || (CUSPARSE_VERSION < 10200)",
}
STUBS = """
#include <sstream>
#include <string>
#include <climits>
template <class... Arguments> void fail(Arguments&&...);
#define AT_ERROR(...) fail(__VA_ARGS__)
"""


def header(text, version, declares):
    text = re.sub(r"#define CUSPARSE_VER_(MAJOR|MINOR|PATCH|BUILD) .*\n", "", text)
    text = re.sub(r"#define CUSPARSE_VERSION (.*\\\n)*.*\n", "", text)
    if not declares:
        text, found = re.subn(
            r"const char\* CUSPARSEAPI\s+cusparseGetErrorString\([^;]*;", "", text
        )
        assert found == 1, "one declaration is expected in cusparse.h"
    if version:
        major, minor, patch = version
        text = (
            f"#define CUSPARSE_VER_MAJOR {major}\n#define CUSPARSE_VER_MINOR {minor}\n"
            f"#define CUSPARSE_VER_PATCH {patch}\n"
            f"#define CUSPARSE_VERSION {major * 1000 + minor * 100 + patch}\n{text}"
        )
    return text


def excerpt(source):
    start = source.index("namespace at {")
    end = source.index("inline cusparseHandle_t setCUDASparseStream")
    tail = "\nvoid use(cusparseStatus_t s) { CUSPARSE_CHECK(s); }\n}}}}\n"
    return f"{STUBS}\n#include <cusparse.h>\n{source[start:end]}{tail}"


def guarded(text, condition):
    start = text.index("std::string cusparseGetErrorString")
    end = text.index("inline void CUSPARSE_CHECK")
    return f"{text[:start]}{condition}\n{text[start:end]}#endif\n\n{text[end:]}"


def compile_one(folder, text, head, compiler):
    (folder / "cusparse.h").write_text(head)
    (folder / "x.cu").write_text(text)
    command = [*compiler, f"-I{folder}", "-c", "x.cu", "-o", "x.o"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    return {"exit": done.returncode, "error": errors[0].strip() if errors else None}


def main(source, edit, head, *compiler):
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        target = folder / "tree/aten/src/ATen/native/sparse/cuda/SparseCUDABlas.cu"
        target.parent.mkdir(parents=True)
        original = pathlib.Path(source).read_text()
        target.write_text(original)
        edits = [
            {
                "patch": "rename-cusparse-error-string",
                "file": "aten/src/ATen/native/sparse/cuda/SparseCUDABlas.cu",
                "find": r"\bcusparseGetErrorString\b",
                "replace": "getCusparseErrorString",
                "sites": 2,
            }
        ]
        (folder / "edits.json").write_text(json.dumps(edits))
        subprocess.run(
            [sys.executable, edit, folder / "tree", folder / "edits.json"],
            check=True,
            stdout=sys.stderr,
        )
        texts = {"as released": excerpt(original), "patched": excerpt(target.read_text())}
        texts.update({k: guarded(excerpt(original), v) for k, v in GUARDS.items()})
        for release, version, declares in RELEASES:
            text = header(pathlib.Path(head).read_text(), version, declares)
            seen = {k: compile_one(folder, v, text, compiler) for k, v in texts.items()}
            rows.append({"cuda": release, "declares": declares, **seen})
    print(json.dumps({"compiler": list(compiler), "rows": rows}, indent=1))


main(*sys.argv[1:])
