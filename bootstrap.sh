#!/bin/sh
# Sets everything up on a Debian 12 or 13 machine that has nothing but sh and the package registries,
# then runs the daemon or the tests. Safe to repeat; takes a second when all is there.
#
#   sh bootstrap.sh run [ARGUMENT...]     `oomwatchd run` in the foreground, default config
#   sh bootstrap.sh test                  lint, types and all tests
#   sh bootstrap.sh test ARGUMENT...      pytest with these arguments alone
#   sh bootstrap.sh lint                  lint and types alone
#   sh bootstrap.sh setup                 set up alone
set -eu

# systemd-python has no wheel: it is built, which takes a compiler, Python's headers and libsystemd's.
packages='ca-certificates gcc libc6-dev libsystemd-dev libudev1 pkg-config python3 python3-dev python3-venv'
# systemd brings systemd-analyze and journald (it does not become PID 1 by that), chromium shows the pages,
# netbase makes /etc/hosts, which says what localhost is.
packages_for_tests='busybox-static chromium chromium-driver fish groff-base iproute2 logrotate mandoc netbase openrc
openssl rpm shellcheck systemd systemd-journal-remote util-linux zsh'
# kubectl renders what packaging/kubernetes applies; it comes from elsewhere on many machines.
command -v kubectl >/dev/null || packages_for_tests="$packages_for_tests kubernetes-client"

# Servers: installed without being started.
servers_for_tests='containerd docker.io podman prometheus prometheus-alertmanager runc stunnel4'
# The same, where this Debian has them; the tests that need one are skipped without it.
servers_where_had='clickhouse-server earlyoom mosquitto-clients nats-server nohang rsyslog victoria-metrics'
# For tests/vm: whole systems of Debian's packages under QEMU, and a clean one to build the package in.
packages_for_vm='cpio e2fsprogs git mmdebstrap qemu-system-x86'

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 64
}

fail() {
    status=$1
    shift
    printf 'bootstrap.sh: %s\n' "$*" >&2
    exit "$status"
}

# A command whose output is of interest only when it fails: quietly STEP COMMAND...
quietly() {
    step=$1
    shift
    printf 'bootstrap.sh: %s\n' "$step" >&2
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        trap - EXIT # keep the log
        fail 69 "failed: $step (whole output: $log); can this machine reach its package registries?"
    fi
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

# Those of the packages that are not installed.
missing_of() {
    for package in "$@"; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
        [ "$status" = installed ] || printf ' %s' "$package"
    done
}

install_packages() {
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0
    # A source that cannot be reached matters only if the packages then cannot be installed.
    apt update >"$log" 2>&1 </dev/null || cat "$log" >&2
    # shellcheck disable=SC2086  # a list of words
    quietly "installing$missing" apt install --no-install-recommends $missing
}

# Debian starts and enables a server when it is installed; these are started by the tests alone
# (policy-rc.d: 101 forbids it, see invoke-rc.d(8)).
install_servers() {
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=$policy
    fi
    status=0
    # shellcheck disable=SC2086  # a list of words; a subshell, which may exit
    (install_packages $missing) || status=$?
    [ -z "$ours" ] || rm -f "$ours"
    [ "$status" = 0 ] || exit "$status"
    # shellcheck disable=SC2086
    ! command -v systemctl >/dev/null || systemctl disable $missing >"$log" 2>&1 || true
}

# Those of the servers that this Debian has.
install_servers_where_had() {
    had=
    for package in "$@"; do
        ! apt-cache show "$package" >/dev/null 2>&1 || had="$had $package"
    done
    # shellcheck disable=SC2086  # a list of words
    [ -z "$had" ] || install_servers $had
}

# promtool alone: Debian 12 has it only inside prometheus, which would start a server when installed.
install_promtool() {
    [ ! -x "$venv/bin/promtool" ] || return 0
    if [ -x /usr/bin/promtool ]; then
        ln -sf /usr/bin/promtool "$venv/bin/promtool"
        return 0
    fi
    apt-cache show prometheus >/dev/null 2>&1 || quietly 'reading the package lists' apt update
    package=prometheus
    ! apt-cache show promtool >/dev/null 2>&1 || package=promtool
    download=$venv/download
    rm -rf "$download"
    mkdir "$download"
    # shellcheck disable=SC2016  # the inner shell expands
    quietly 'downloading promtool' sh -c 'cd "$1" && shift && "$@" && dpkg-deb -x ./*.deb .' sh \
        "$download" apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download "$package"
    mv "$download/usr/bin/promtool" "$venv/bin/promtool"
    rm -rf "$download"
}

# What the virtual environment was made from; it is mended when this changes.
recipe() {
    printf '%s %s\n' "$here" "$1"
    "$python" -VV
    cat pyproject.toml
}

# install_python EXTRA: EXTRA is empty or dev, which holds all that the empty one does
install_python() {
    if [ -f "$venv/recipe" ]; then
        made_from=$(cat "$venv/recipe")
        [ "$made_from" != "$(recipe "$1")" ] || return 0
        [ "$made_from" != "$(recipe dev)" ] || return 0
    fi
    # Moved, copied, or made by a Python that is gone: make it anew.
    if [ -d "$venv" ] && ! "$venv/bin/python" -c "import sys; sys.exit(sys.prefix != '$venv')" 2>/dev/null; then
        rm -rf "$venv"
    fi
    [ -x "$venv/bin/pip" ] || quietly "making $venv" "$python" -m venv "$venv"
    quietly 'installing Python packages' \
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --use-pep517 --editable ".[journal${1:+,$1}]"
    # The fuzzer has wheels for some machines and Pythons alone, and takes clang to build.
    [ "$1" != dev ] || "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --only-binary :all: --quiet --editable '.[fuzz]' >"$log" 2>&1 </dev/null ||
        printf 'bootstrap.sh: no atheris for this machine: the fuzz tests mutate at random\n' >&2
    recipe "$1" >"$venv/recipe"
}

lint() {
    result=0
    "$venv/bin/python" -m ruff check . || result=1
    "$venv/bin/python" -m ruff format --check . || result=1
    "$venv/bin/python" -m mypy || result=1
    return "$result"
}

[ $# -ge 1 ] || usage
task=$1
shift
case $task in
run | test | lint | setup) ;;
*) usage ;;
esac

# A closed standard input would hand its number to the next file that is opened.
if ! (: <&0) 2>/dev/null; then
    exec </dev/null
fi

[ "$(id -u)" = 0 ] || fail 77 "installs packages and reads the kernel log, which takes root; try: sudo sh $0 $task"
[ -x /usr/bin/apt-get ] || fail 69 'needs Debian 12 or newer: there is no apt-get here'

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd "$here"
venv=$here/.venv
python=/usr/bin/python3 # Debian's own, whatever comes first in PATH
log=$(mktemp "${TMPDIR:-/tmp}/oomwatchd-bootstrap.XXXXXX")
trap 'rm -f "$log"' EXIT

# shellcheck disable=SC2086  # lists of words
case $task in
run | setup) install_packages $packages ;;
*)
    install_packages $packages $packages_for_tests $packages_for_vm
    if [ "$task" != lint ]; then
        install_servers $servers_for_tests
        install_servers_where_had $servers_where_had
    fi
    ;;
esac
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail 69 "needs Python 3.11 (Debian 12) or newer, this is $("$python" -V)"

case $task in
setup)
    install_python ''
    ;;
run)
    install_python ''
    rm -f "$log"
    exec "$venv/bin/oomwatchd" run "$@"
    ;;
lint)
    install_python dev
    lint
    ;;
test)
    install_python dev
    install_promtool
    PATH=$venv/bin:$PATH
    export PATH
    if [ $# -gt 0 ]; then
        "$venv/bin/python" -m pytest "$@"
    else
        result=0
        lint || result=1
        # What the quick tests reach is measured; the others run whole systems and processes of their own.
        "$venv/bin/python" -m coverage run -m pytest -m 'not slow and not vm' || result=1
        "$venv/bin/python" -m coverage report --format=total | sed 's/.*/covered by the quick tests: & %/'
        "$venv/bin/python" -m pytest -m 'slow or vm' || result=1
        exit "$result"
    fi
    ;;
esac
