#!/bin/sh
# Builds the Debian package in a clean Debian 13, which is made on the first run and kept in the cache.
#
#   sh packaging/debian/build.sh [--check] [OUTPUT_DIRECTORY]
#
# Needs root, mmdebstrap and Debian's archive. --check installs the package there with Debian's own Python
# modules and runs the fast tests against it. Cache: $OOMWATCHD_CACHE, by default
# $XDG_CACHE_HOME/oomwatchd (~/.cache/oomwatchd).
set -eu

suite=trixie
here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
check=
[ "${1-}" != --check ] || { check=yes; shift; }
mkdir -p "${1:-$here/dist}"
output=$(CDPATH='' cd -- "${1:-$here/dist}" && pwd -P)
cache=${OOMWATCHD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oomwatchd}
root=$cache/build-$suite
build_packages=build-essential,debhelper,dh-python,dh-sequence-python3,pybuild-plugin-pyproject,python3-all,python3-setuptools,lintian
test_packages='python3-pytest python3-hypothesis python3-jsonschema systemd netbase util-linux'

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 69
}

[ "$(id -u)" = 0 ] || fail 'needs root for the chroot'
[ -x /usr/bin/mmdebstrap ] || fail 'needs mmdebstrap: apt-get install mmdebstrap'

# within COMMAND...: in the clean system, with mounts that end with the command
within() {
    unshare --mount --propagation private sh -ec '
        root=$1; shift
        mount --bind "$root" "$root" # a mount point, which programs inside expect of /
        mount -t proc proc "$root/proc"
        mount --rbind /sys "$root/sys"
        mount --rbind /dev "$root/dev"
        cp -L /etc/resolv.conf "$root/etc/resolv.conf"
        exec chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
    ' sh "$root" "$@"
}

mkdir -p "$cache"
exec 9>"$cache/build.lock" # one build at a time
flock 9
if [ ! -f "$root/.complete" ]; then
    rm -rf "$root"
    mmdebstrap --quiet --variant=minbase --include="$build_packages" --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$root"
    touch "$root/.complete"
fi

# copy DESTINATION TAR_OPTION...: what git knows of, as it is in the working tree
copy() {
    destination=$1
    shift
    mkdir -p "$destination"
    git -C "$here" -c safe.directory="$here" ls-files -z --cached --others --exclude-standard |
        (cd "$here" && xargs -0 sh -c 'for f; do [ ! -f "$f" ] || printf "%s\0" "$f"; done' sh) |
        tar -C "$here" "$@" --null -T - -cf - | tar -C "$destination" --no-same-owner -xf -
}

rm -rf "$root/build"
copy "$root/build/source" --exclude=tests
cp -r "$here/packaging/debian" "$root/build/source/debian"
within sh -ec 'cd /build/source && dpkg-buildpackage --no-sign --build=binary'
# The project has no mail address and is not uploaded to Debian.
within sh -c 'lintian --allow-root --fail-on error,warning --suppress-tags "$1" /build/*.changes' sh \
    bogus-mail-host,bogus-mail-host-in-debian-changelog ||
    fail 'lintian is not content'
cp "$root"/build/oomwatchd_*_all.deb "$output/"
ls "$output"/oomwatchd_*_all.deb

[ -n "$check" ] || exit 0
copy "$root/build/check" --exclude='oomwatchd/*' # the package's own is the one to be tested
within sh -ec "
    apt-get -q -y update
    apt-get -q -y install --no-install-recommends --reinstall /build/oomwatchd_*_all.deb $test_packages
    cd /build/check
    sh packaging/debian/tests/smoke
    PYTHONPATH=/build/check python3 -P -m pytest -q -p no:cacheprovider -m 'not oom and not slow and not vm' \
        --ignore=tests/browser --ignore=tests/vm --ignore=tests/test_packaging.py
"
