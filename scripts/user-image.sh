#!/usr/bin/env bash
# Builds the image that users live in, innkeeper/user:latest, unless it is up to date.
#
# usage: scripts/user-image.sh
#
# The base is Debian's from a registry, and where that cannot be had, one built from Debian's packages (base-image.sh).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$repo/scripts/engine.sh"

image=innkeeper/user:latest
upstream=debian:12-slim
# Long enough for 30 MB over a modest line, short enough to wait for a registry that never answers.
readonly PULL_SECONDS=45

inputs=$(hash_of user-image/Dockerfile user-image/packages.txt user-image/files)
current() { docker image inspect --format '{{index .Config.Labels "innkeeper.inputs"}}' "$image" 2>/dev/null; }
[ "$(current)" != "$inputs" ] || exit 0

# Side by side with another checkout's, or with a test's: one builds, the others find it built.
exec 9>"${TMPDIR:-/tmp}/innkeeper-user-image.$(id -u).lock"
flock 9
[ "$(current)" != "$inputs" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() {
    say "building $image on $1"
    docker build --build-arg "BASE=$1" --label "innkeeper.inputs=$inputs" --iidfile "$work/id" "$repo/user-image" >"$work/log" 2>&1 9>&- ||
        { tail -n 10 "$work/log" >&2 && false; }
}

if { docker image inspect "$upstream" || timeout "$PULL_SECONDS" docker pull --quiet "$upstream"; } >/dev/null 2>&1 && build "$upstream"; then
    :
else
    say "no $upstream from a registry: Debian's packages instead"
    base=$("$repo/scripts/base-image.sh")
    build "$base" || die "docker could not build $image: its last lines are above"
fi
replace_image "$(cat "$work/id")" "$image"
say "$image: $(docker image inspect --format '{{.Size}}' "$image" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
