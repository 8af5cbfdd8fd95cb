# shellcheck shell=bash
# The Docker Engine: found, or installed and started. Sourced after lib.sh, never run.

# The command line and the gateway must speak to the same engine, so neither a context nor a default decides.
export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
engine_socket=${DOCKER_HOST#unix://}

# How long a daemon may take to answer after its start, in seconds: the first one sets up its storage.
readonly ENGINE_START_SECONDS=60

engine_answers() { have docker && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

engine_version() { docker version --format '{{.Server.Version}}'; }

# ensure_engine LOG: leaves with an engine that answers, or says why there is none. LOG gets the output of a daemon started by hand.
ensure_engine() {
    local log=$1
    [ "$engine_socket" != "$DOCKER_HOST" ] || die "DOCKER_HOST=$DOCKER_HOST is not a Unix socket; unset it, or write unix:///path"
    engine_answers && return
    if [ -S "$engine_socket" ] && [ ! -w "$engine_socket" ]; then
        die "the Docker Engine at $engine_socket does not let $(id -un) in; run: sudo usermod -aG docker $(id -un), and log in again"
    fi
    if ! is_root; then
        have dockerd || die "no Docker Engine; install and start it with: sudo apt-get update && sudo apt-get install -y docker.io"
        die "the Docker Engine at $engine_socket does not answer; start it with: sudo service docker start"
    fi
    [ "$engine_socket" = /var/run/docker.sock ] || die "nothing answers at DOCKER_HOST=$DOCKER_HOST; start that engine or unset DOCKER_HOST"

    have dockerd || install_packages docker.io iptables
    # From Debian 13 on, the command line is a package of its own.
    have docker || install_packages docker-cli
    # The installation may have started it already.
    wait_for_engine 3 || start_engine "$log"
    say "Docker Engine $(engine_version) answers"
}

start_engine() {
    local log=$1
    say "starting the Docker Engine"
    if [ -d /run/systemd/system ]; then
        systemctl start docker || die "systemctl could not start docker; see: journalctl -u docker"
        wait_for_engine "$ENGINE_START_SECONDS" || die "docker was started and does not answer; see: journalctl -u docker"
        return
    fi

    # Without overlayfs in the kernel, the same in user space is the best there is.
    if ! grep -qw overlay /proc/filesystems && ! modprobe overlay 2>/dev/null; then
        need fuse-overlayfs=fuse-overlayfs
    fi
    # Debian's own script also mounts the cgroups where nobody has.
    if [ -x /etc/init.d/docker ] && /etc/init.d/docker start >&2 && wait_for_engine 20; then
        return
    fi
    run_dockerd "$log" && return
    # Slow, and works on any file system.
    if ! grep -qs storage-driver /etc/docker/daemon.json; then
        run_dockerd "$log" --storage-driver=vfs && return
    fi
    tail -n 15 "$log" >&2
    die "dockerd does not start: its last lines are above, the rest is in $log"
}

# run_dockerd LOG [OPTION...]: a daemon of our own, which outlives this script. Fails when it ends or stays silent.
run_dockerd() {
    local log=$1 pid
    shift
    mkdir -p "$(dirname "$log")"
    say "dockerd${*:+ $*} (log: $log)"
    (ulimit -n 1048576 2>/dev/null; exec setsid dockerd "$@" </dev/null >>"$log" 2>&1) &
    pid=$!
    wait_for_engine "$ENGINE_START_SECONDS" "$pid" && return
    kill "$pid" 2>/dev/null && wait "$pid"
    return 1
}

# wait_for_engine SECONDS [PID]: until it answers; gives up early when the process PID ends.
wait_for_engine() {
    local deadline=$((SECONDS + $1)) pid=${2-}
    until engine_answers; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.2
    done
}

# replace_image ID NAME: gives the image its name, and removes the one that had it, unless a container still uses that.
replace_image() {
    local previous
    previous=$(docker image inspect --format '{{.Id}}' "$2" 2>/dev/null || true)
    docker tag "$1" "$2"
    [ -z "$previous" ] || [ "$previous" = "$1" ] || docker image rm "$previous" >/dev/null 2>&1 || true
}
