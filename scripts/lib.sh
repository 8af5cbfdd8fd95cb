# shellcheck shell=bash
# What quickstart, test and the scripts beside this file share: how they speak, and how they install what is missing. Sourced, never run.

# Where dockerd and sshd are, which a user's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# One line about what happens, to standard error, so that standard output stays what somebody asked for.
say() { printf '%s\n' "==> $*" >&2; }

# One line that names what is wrong and the mend, and the end.
die() {
    printf '%s\n' "error: $*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing. Not root: says the one command.
need() {
    local pair packages=()
    for pair in "$@"; do
        have "${pair%%=*}" || packages+=("${pair#*=}")
    done
    [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
}

install_packages() {
    have apt-get || die "missing: $*; this machine has no apt-get to install them with, so install them and start again"
    is_root || die "missing: $*; install with: sudo apt-get update && sudo apt-get install -y $*"
    say "installing $*"
    local log
    log=$(mktemp)
    # An index that is missing or has gone stale shows as a failed install: only then is it worth fetching.
    if ! apt_install "$@" >"$log" 2>&1; then
        if ! { apt-get -o DPkg::Lock::Timeout=300 update && apt_install "$@"; } >"$log" 2>&1 </dev/null; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            die "apt-get could not install $*: its last lines are above"
        fi
    fi
    rm -f "$log"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" </dev/null
}

# Hash of files and directories: names, modes and contents. Empty when one is missing.
hash_of() {
    (cd "$repo" && find "$@" -type f -printf '%p %m\n' -exec sha256sum {} \; | LC_ALL=C sort | sha256sum | cut -c1-16)
}

# The compiler behind `cargo`, and what it needs from Debian. Rust itself is the one thing that is not installed here.
need_rust() {
    # Under sudo the PATH is root's, and rustup's programs are in somebody's home.
    local home
    for home in "${CARGO_HOME:-$HOME/.cargo}" ${SUDO_USER:+"$(getent passwd "$SUDO_USER" | cut -d: -f6)/.cargo"}; do
        have cargo || [ ! -x "$home/bin/cargo" ] || PATH=$home/bin:$PATH
    done
    have cargo || die "Rust is missing; install it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y, and open a new shell"
    need gcc=gcc
    [ -e /usr/include/stdio.h ] || install_packages libc6-dev
}

# cargo as whoever owns the checkout: under sudo a build as root would leave files that its owner cannot replace.
run_cargo() {
    if is_root && [ -n "${SUDO_USER-}" ] && [ "$(stat -c %U "$repo")" = "$SUDO_USER" ]; then
        sudo -u "$SUDO_USER" -H env "PATH=$PATH" "$(command -v cargo)" "$@"
    else
        cargo "$@"
    fi
}

# mounts_below DIR: every mount point at or below it, deepest last mounted first.
mounts_below() {
    # In mountinfo a space is \040: printf %b turns it back.
    local target
    tac /proc/self/mountinfo | while read -r _ _ _ _ target _; do
        printf -v target %b "${target//\\0/\\00}"
        case $target in "$1" | "$1"/*) printf '%s\n' "$target" ;; esac
    done
}
