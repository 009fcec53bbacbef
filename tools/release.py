"""A release in two commands: ``python -m tools.release prepare 0.2.0``, ``python -m tools.release make``.

``prepare`` writes the version into the three places that have it, for a commit of its own. ``make`` builds in
a clean clone of that commit: source archive, wheel, Debian package, checksums, and the notes for people. Each
is installed and tried. It tags and publishes nothing; it prints the commands that do.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?")
_MAINTAINER = re.compile(r"^ -- (.*?)  ", re.MULTILINE)
#: a report of a real kernel, which each package must explain
TRIED = "tests/data/corpus/seed/mips-3.10-highmem.log"


class ReleaseError(Exception):
    """What keeps it from being a release, and what mends it."""


def prepare(root: Path, version: str, today: datetime) -> None:
    """Write ``version`` into all places that have it. Raises ReleaseError."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version} is not a version: MAJOR.MINOR.PATCH")
    package, changelog, debian, manifest = _places(root)
    words = changelog.read_text()
    if f"## [{version}]" in words:
        raise ReleaseError(f"{changelog.name} has a section {version} already")
    if not notes(words, "Unreleased"):
        raise ReleaseError(f"{changelog.name} says nothing of what is new: fill the section [Unreleased]")
    title = "## [Unreleased]\n"
    changelog.write_text(words.replace(title, f"{title}\n## [{version}] - {today:%Y-%m-%d}\n", 1))
    package.write_text(
        re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', package.read_text(), flags=re.MULTILINE)
    )
    manifest.write_text(re.sub(r'(?<=newTag: )".*"', f'"{version}"', manifest.read_text()))
    older = debian.read_text()
    by = _MAINTAINER.search(older)
    if by is None:
        raise ReleaseError(f"{debian} names no maintainer")
    debian.write_text(
        f"oomwatchd ({debian_version(version)}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
        f" -- {by[1]}  {format_datetime(today)}\n\n{older}"
    )


PLACES = (
    "oomwatchd/__init__.py",
    "CHANGELOG.md",
    "packaging/debian/changelog",
    "packaging/kubernetes/base/kustomization.yaml",
)


def _places(root: Path) -> list[Path]:
    return [root / name for name in PLACES]


def debian_version(version: str) -> str:
    """A version as dpkg orders it: 1.0.0rc1 comes before 1.0.0."""
    return re.sub(r"(a|b|rc)", r"~\1", version)


def notes(changelog: str, section: str) -> str:
    """The text of one section of CHANGELOG.md."""
    found = re.search(
        rf"^## \[{re.escape(section)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else ""


def version_of(root: Path) -> str:
    """The version, the same in all places. Raises ReleaseError."""
    package, changelog, debian, manifest = _places(root)
    found = re.search(r'^__version__ = "(.*)"$', package.read_text(), re.MULTILINE)
    version = found[1] if found else "?"
    first = debian.read_text().partition(")")[0].partition("(")[2]
    if first != debian_version(version):
        raise ReleaseError(f"{debian.name} begins with {first}, the package is {version}: run `prepare`")
    if not notes(changelog.read_text(), version):
        raise ReleaseError(f"{changelog.name} has no section {version}: run `prepare`")
    if f'newTag: "{version}"\n' not in manifest.read_text():
        raise ReleaseError(f"{manifest.name} names another image than {version}: run `prepare`")
    return version


def at_home(root: Path, home: str, version: str) -> None:
    """Name the project's address in the packages of ``root``, and make README's links absolute: PyPI shows it
    away from the files. Raises ReleaseError."""
    if not re.fullmatch(r"https://[^\s/]+/\S*[^\s/]", home):
        raise ReleaseError(f"{home} is no address of a project: https://FORGE/OWNER/NAME")

    def absolute(link: re.Match[str]) -> str:
        shown, path = link[1], link[2]
        return f"{shown}({home}/{'raw' if shown.startswith('!') else 'blob'}/v{version}/{path})"

    readme = root / "README.md"
    readme.write_text(re.sub(r"(!?\[[^\]]*\])\(([^):]+)\)", absolute, readme.read_text()))
    project = root / "pyproject.toml"
    pages = {
        "Homepage": home,
        "Changelog": f"{home}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    urls = "".join(f'{name} = "{url}"\n' for name, url in pages.items())
    text = project.read_text()
    project.write_text(text.replace("[project.scripts]\n", f"[project.urls]\n{urls}\n[project.scripts]\n", 1))
    control = root / "packaging/debian/control"
    text = control.read_text()
    control.write_text(text.replace("Standards-Version:", f"Homepage: {home}\nStandards-Version:", 1))


def make(
    root: Path,
    output: Path,
    *,
    deb: bool = True,
    tried: Sequence[str] = ("*.whl", "*.tar.gz"),
    home: str | None = None,
) -> list[Path]:
    """Build everything from what is committed, install and try those of the patterns ``tried``; the files.
    ``home``: see :func:`at_home`. Raises ReleaseError, CalledProcessError."""
    if _said(["git", "status", "--porcelain", "--untracked-files=no"], root):
        raise ReleaseError("there are changes that are not committed")
    version = version_of(root)
    if notes((root / "CHANGELOG.md").read_text(), "Unreleased"):
        raise ReleaseError(
            f"CHANGELOG.md has changes that are not in {version}, under [Unreleased]: run `prepare`"
        )
    output.mkdir(parents=True, exist_ok=True)
    if old := [path.name for path in output.iterdir()]:
        raise ReleaseError(f"{output} is not empty ({', '.join(sorted(old)[:3])})")
    with tempfile.TemporaryDirectory() as work:
        clean = Path(work) / "oomwatchd"
        _do(["git", "clone", "--quiet", "--no-hardlinks", str(root), str(clean)], root)
        if home is not None:
            at_home(clean, home, version)
        # the wheel is built of the source archive: what that lacks is missed here
        _do([sys.executable, "-m", "build", "--outdir", str(output), str(clean)], clean)
        if deb:
            _do(["sh", "packaging/debian/build.sh", str(output)], clean)
        for built in sorted(path for pattern in tried for path in output.glob(pattern)):
            _try(built, Path(work) / f"try-{built.suffix}", version, clean / TRIED)
        if deb:
            _try_deb(next(output.glob("*.deb")), Path(work) / "deb", version)
        (output / "NOTES.md").write_text(f"{notes((clean / 'CHANGELOG.md').read_text(), version)}\n")
    for other in output.iterdir():
        if other.suffix in (".buildinfo", ".changes"):
            other.unlink()
    files = sorted(output.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (output / "SHA256SUMS").write_text("".join(sums))
    return [*files, output / "SHA256SUMS"]


def _try(built: Path, place: Path, version: str, log: Path) -> None:
    """Install it where nothing else is, and have it explain a report."""
    venv.create(place, with_pip=True)
    python = str(place / "bin/python")
    _do([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(built)], place)
    command = str(place / "bin/oomwatchd")
    if (said := _said([command, "--version"], place)) != f"oomwatchd {version}":
        raise ReleaseError(f"{built.name} says it is {said}")
    if "invoked oom-killer" in (said := _said([command, "analyze", str(log)], place)) or "DIED" not in said:
        raise ReleaseError(f"{built.name} explains nothing of {log.name}: {said[:200]}")


def _try_deb(built: Path, place: Path, version: str) -> None:
    """Unpacked, its modules are of that version; dpkg's own checks ran in the build."""
    if (said := _said(["dpkg-deb", "--field", str(built), "Version"], built.parent)) != debian_version(
        version
    ):
        raise ReleaseError(f"{built.name} says it is {said}")
    _do(["dpkg-deb", "--extract", str(built), str(place)], built.parent)
    if not list(place.glob("usr/lib/systemd/system/oomwatchd.service")):
        raise ReleaseError(f"{built.name} has no unit")


def _do(command: Sequence[str], directory: Path) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, cwd=directory, check=True, stdout=sys.stderr, env=_clean())


def _said(command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, env=_clean())
    return done.stdout.strip()


def _clean() -> dict[str, str]:
    """Without what would have the checkout imported in place of what was built."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    preparing = tasks.add_parser("prepare", help="write the version where it stands")
    preparing.add_argument("version")
    making = tasks.add_parser("make", help="build and try what is committed")
    where = "an empty directory; default: dist"
    making.add_argument("--output", type=Path, default=ROOT / "dist", help=where)
    making.add_argument("--home", metavar="URL", help="where the project is: https://FORGE/OWNER/NAME")
    making.add_argument("--no-deb", action="store_true", help="without the Debian package, which takes root")
    args = parser.parse_args(argv)
    try:
        if args.task == "prepare":
            prepare(ROOT, args.version, datetime.now(UTC))
            print(f"git commit -am 'oomwatchd {args.version}', then: python -m tools.release make")
            return 0
        files = make(ROOT, args.output.absolute(), deb=not args.no_deb, home=args.home)
    except (ReleaseError, subprocess.CalledProcessError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    version = version_of(ROOT)
    print(*(f"{path.stat().st_size:10d}  {path.name}" for path in files), sep="\n")
    print(
        f"\nTo publish:\n  git tag -s v{version} -F {args.output}/NOTES.md --cleanup=verbatim\n"
        f"  git push origin v{version}\n  twine upload {args.output}/*.tar.gz {args.output}/*.whl\n"
        "  and all of these files, with NOTES.md as the text, to the release of that tag"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
