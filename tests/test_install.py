"""pip installs the package without a compiler, and what is missing then is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import block

ROOT = Path(__file__).resolve().parent.parent
#: machines without a compiler for which every dependency has wheels
PLATFORMS = (
    *("manylinux2014_x86_64", "manylinux2014_aarch64"),
    *("musllinux_1_2_x86_64", "musllinux_1_2_aarch64"),
)
#: hides compilers and libsystemd's headers alike
NO_COMPILER = {
    **os.environ,
    "CC": "/bin/false",
    "PKG_CONFIG": "/bin/false",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path, status: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={key: value for key, value in NO_COMPILER.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_it_installs_and_explains_without_a_compiler(tmp_path: Path, corpus: Path) -> None:
    wheels = tmp_path / "wheels"
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT, cwd=tmp_path)
    (wheel,) = wheels.glob("oomwatchd-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    pip = tmp_path / "venv/bin/pip"
    run(pip, "install", "-q", "--only-binary=:all:", wheel, cwd=tmp_path)
    assert "systemd" not in run(pip, "list", cwd=tmp_path)
    command = tmp_path / "venv/bin/oomwatchd"
    said = run(command, "analyze", corpus / "seed" / "mips-3.10-highmem.log", cwd=tmp_path)
    assert said.startswith("DIED     min_free_kbytes (pid 118")
    (tmp_path / "system.journal").touch()
    refused = subprocess.run(
        [command, "analyze", "--journal", "--directory", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 69
    assert "systemd-python" in refused.stderr and len(refused.stderr.splitlines()) == 1


#: a root of its own over this machine's: what is installed there is gone afterwards
OVER_THIS_ONE = """
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
for directory in proc dev sys; do mount --rbind "/$directory" "$0/root/$directory"; done
mkdir "$0/root/checkout"
cd "$1"
cp -r oomwatchd packaging pyproject.toml README.md LICENSE "$0/root/checkout"
chroot "$0/root" sh -exc "cd /checkout; $2"
"""


@pytest.mark.oom
def test_each_command_of_the_page_works(tmp_path: Path) -> None:
    """docs/install.md as it stands there, up to the self-test; nothing is started."""
    with_systemd = block("install", "sh", "/opt/oomwatchd", {"enable --now": "enable"})
    without = block("install", "sh", "rc-update")
    openwrt = without.index("# OpenWrt")
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", OVER_THIS_ONE),
            *(str(tmp_path), str(ROOT), with_systemd + without[:openwrt]),
        ],
        env={**os.environ, "SYSTEMD_OFFLINE": "1", "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "ok: the OOM kill of process" in done.stdout


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_dependency_has_wheels(platform: str, tmp_path: Path) -> None:
    import tomllib

    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    run(
        *(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--platform", platform),
        *("--python-version", "3.11", "--implementation", "cp", "-d", tmp_path, *needed),
        cwd=tmp_path,
    )
    assert any("msgspec" in file.name for file in tmp_path.iterdir())
