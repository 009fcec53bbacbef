"""Recipes for other distributions: what they name is there, and what each system's tools read of them.

docs/install.md says what was run with the systems themselves.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from oomwatchd import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
RECIPES = [
    PACKAGING / "buildroot/package/oomwatchd/oomwatchd.mk",
    *PACKAGING.glob("yocto/recipes-support/oomwatchd/*.bb"),
    PACKAGING / "openwrt/oomwatchd/Makefile",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parts[-3])
def test_every_file_that_a_recipe_installs_is_there(recipe: Path) -> None:
    named = re.findall(r"(packaging/[\w./*-]+)", recipe.read_text())
    assert len(named) >= 4
    for name in named:
        assert [*ROOT.glob(name)], name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parts[-3])
def test_the_recipes_are_of_this_version(recipe: Path) -> None:
    assert __version__ in recipe.name + recipe.read_text()


def test_the_license_of_yocto_is_ours() -> None:
    (recipe,) = PACKAGING.glob("yocto/recipes-support/oomwatchd/*.bb")
    digest = hashlib.md5((ROOT / "LICENSE").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"md5={digest}" in recipe.read_text()


def test_the_recipes_of_msgspec_have_one_archive() -> None:
    texts = [
        (PACKAGING / "buildroot/package/python-msgspec/python-msgspec.hash").read_text(),
        (PACKAGING / "openwrt/python-msgspec/Makefile").read_text(),
        next(PACKAGING.glob("yocto/recipes-devtools/python/*.bb")).read_text(),
    ]
    found = [re.findall(r"\b[0-9a-f]{64}\b", text)[0] for text in texts]
    assert len({*found}) == 1


STUBS = {
    "rules.mk": "INCLUDE_DIR:=$(TOPDIR)/include\n"
    "PKG_BUILD_DIR=$(SOURCES)\nPKG_INSTALL_DIR=$(SOURCES)/installed\n"
    "INSTALL_DIR:=install -d\nINSTALL_BIN:=install -m0755\nINSTALL_CONF:=install -m0600\nCP:=cp -fpR\n",
    "include/package.mk": "define BuildPackage\n$(1)-install: ; $$(call Package/$(1)/install,$(TO))\nendef\n",
    "feeds/packages/lang/python/python3-package.mk": "define Py3Package\n"
    "Package/$(1)/install=$$(Py3Package/$(1)/install)\nendef\n",
}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_openwrt_installs_what_it_says(tmp_path: Path) -> None:
    """With stubs for OpenWrt's own files, make reads the package and runs its installation."""
    for name, text in STUBS.items():
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sources, to = tmp_path / "sources", tmp_path / "to"
    shutil.copytree(PACKAGING, sources / "packaging")
    (sources / "installed/usr/bin").mkdir(parents=True)
    (sources / "installed/usr/bin/oomwatchd").write_text("#!/usr/bin/python3\n")
    words = [f"TOPDIR={tmp_path}/top", f"SOURCES={sources}", f"TO={to}"]
    makefile = str(PACKAGING / "openwrt/oomwatchd/Makefile")
    command = ["make", "-s", "-f", makefile, *words, "oomwatchd-install"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = {
        str(path.relative_to(to)): path.stat().st_mode & 0o777 for path in to.rglob("*") if path.is_file()
    }
    assert found == {
        "usr/bin/oomwatchd": found["usr/bin/oomwatchd"],
        "usr/libexec/oomwatchd-ondemand": 0o755,
        "etc/init.d/oomwatchd": 0o755,
        "etc/oomwatchd/config.toml": 0o600,
        "etc/oomwatchd/ondemand.toml": 0o600,
    }
