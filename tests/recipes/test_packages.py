from __future__ import annotations

import hashlib
import zipfile

import msgspec
import pytest

from envforge.errors import HostMismatch
from envforge.recipes import load_recipe, recipe_names
from envforge.recipes.packages import Pins, lay_out_packages, load_pins, pins_for
from envforge.sources.store import Store, default_root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def stored_wheel(tmp_path, name, files):
    """A wheel in the store: what is there is not fetched."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    store = Store(default_root())
    with store.workspace() as workspace:
        path.rename(workspace / name)
        store.put_verified(workspace / name, sha256, name)
    return {"tag": "py3-none", "name": name, "sha256": sha256, "size_bytes": size}


def test_wheels_are_laid_out_in_one_folder_their_data_too(tmp_path):
    a = {"a/__init__.py": "1", "a-1.dist-info/METADATA": ""}
    b = {"b-1.data/purelib/b.py": "2", "b-1.data/scripts/b": "3"}
    rows = [
        {
            "project": name,
            "version": "1",
            "file": stored_wheel(tmp_path, f"{name}-1-py3-none-any.whl", files),
        }
        for name, files in (("a", a), ("b", b))
    ]
    stated = {
        "tag": "cp37-cp37m",
        "torch": ">=1,<2",
        "as_of": "2019-11-21",
        "rows": rows,
        "source": "x",
    }
    pins = msgspec.convert(stated, Pins)
    folder = lay_out_packages(pins, lambda _event: None)
    assert folder.name.startswith("cp37-cp37m-")
    assert (folder / "a/__init__.py").read_text() == "1"
    assert (folder / "b.py").read_text() == "2"
    assert lay_out_packages(pins, lambda _event: None) == folder


def test_pins_are_chosen_by_python_and_torch_and_named_where_none_fit():
    loaded = load_recipe("pix2pix-train")
    path = loaded.shared / "packages/2019-11.yaml"
    chosen = pins_for(path, "cp37-cp37m", "1.0.1.post2", ("torchvision",))
    assert [row.project for row in chosen.rows] == [
        "torchvision",
        "pillow",
        "six",
        "dominate",
        "numpy",
    ]
    with pytest.raises(HostMismatch) as caught:
        pins_for(path, "cp311-cp311", "2.13.0+cpu", ("torchvision", "dominate"))
    assert (
        caught.value.what
        == "the interpreter lacks torchvision, dominate, and nothing is pinned for it"
    )
    assert caught.value.because[0] == "it is cp311-cp311 with torch 2.13.0+cpu"
    assert "pinned: cp37-cp37m with torch >=1.0,<1.2" in caught.value.because


def test_every_shipped_pin_is_a_wheel_of_its_tag():
    for name in recipe_names():
        loaded = load_recipe(name)
        for variant in loaded.recipe.variants.values():
            every = load_pins(loaded.shared / variant.packages) if variant.packages else ()
            for row in (row for pins in every for row in pins.rows):
                assert row.file.name.endswith(".whl")
                assert row.version in row.file.name
