#!/bin/sh
# Makes the container's root file system of Debian's packages: oomwatchd, what it depends on, and nothing else: no
# shell, no package manager.
#
#   sh packaging/container/root.sh oomwatchd_VERSION_all.deb DIRECTORY|FILE.tar
#
# Needs root, mmdebstrap and Debian's archive; Containerfile runs it in its first stage.
set -eu

suite=trixie
[ $# = 2 ] || { sed -n 's/^#   //p' "$0" >&2; exit 64; }
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
deb=$(realpath "$1")
target=$2
depends=$(dpkg-deb --field "$deb" Depends | sed 's/([^)]*)//g; s/:any//g; s/ //g')

# What only people, other programs and other languages read.
set --
for path in doc doc-base man info locale lintian bug perl5 debconf bash-completion zsh fish zoneinfo; do
    set -- "$@" --dpkgopt="path-exclude=/usr/share/$path/*"
done
set -- "$@" --dpkgopt='path-exclude=/usr/bin/*' --dpkgopt='path-exclude=/usr/sbin/*' \
    --dpkgopt='path-include=/usr/bin/python3*'
for path in 'python3*/test' 'python3*/idlelib' 'python3*/ensurepip' 'python3*/pydoc_data' '*/gconv' systemd; do
    set -- "$@" --dpkgopt="path-exclude=/usr/lib/$path/*"
done
export deb
mmdebstrap --quiet --mode=chrootless --variant=extract --include="$depends,base-files,ca-certificates" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
    --aptopt='Acquire::Check-Valid-Until "false"' "$@" --extract-hook="sh $here/finish.sh \"\$1\"" "$suite" "$target"
