#!/usr/bin/env bash
# s3-server.sh DIR: prints where a real S3 server for tests is, s3s-fs of crates.io. Builds it below DIR unless it is there.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

readonly version=0.14.1
mkdir -p "$1"
dir=$(realpath "$1")/s3s-fs-$version
program=$dir/bin/s3s-fs

# Several tests may ask at once.
exec 9>"$dir.lock"
flock 9
if [ ! -x "$program" ]; then
    say "building s3s-fs $version"
    # Optimized a little: it hashes all that it is sent.
    run_cargo install --quiet --locked --debug --no-track --root "$dir" --target-dir "$dir/build" \
        --config profile.dev.debug=false --config profile.dev.opt-level=1 --features binary "s3s-fs@$version" >&2
    rm -rf "$dir/build"
fi
printf '%s\n' "$program"
