#!/usr/bin/env bash
# Feeds random bytes to what parses bytes of strangers: each target of fuzz/ for so many seconds. Ends with 1 at a finding.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$repo"

usage() {
    cat <<'END'
usage: scripts/fuzz.sh [SECONDS [TARGET...]]

Each TARGET of fuzz/targets, or all, for SECONDS (10). What is found is kept in target/fuzz/found: give it to the target as its argument to
see it again. Needs a C++ compiler, for the fuzzer's own part; no other Rust than the build does.
END
}

# Longest input, in bytes. What gets longer makes few new ways through a parser, and each try slower.
readonly LONGEST=4096
# Memory in MiB, and seconds for one input, that are a finding.
readonly MEMORY=512 ONE_INPUT=10

case ${1-} in -h | --help) usage && exit ;; -*) usage >&2 && exit 64 ;; esac
seconds=${1:-10}
shift || true
[ $# -gt 0 ] || set -- orders reports roundtrip screen resolve archive

need_rust
need g++=g++
host=$(rustc -vV | sed -n 's/^host: //p')
readonly out=$repo/target/fuzz

# What `cargo fuzz` would say, in words that a stable compiler knows: counters and compared values, for the fuzzer to steer by.
coverage="-Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing"
for option in -level=4 -inline-8bit-counters -pc-table -trace-compares; do
    coverage+=" -Cllvm-args=-sanitizer-coverage$option"
done

say "fuzz: build"
RUSTFLAGS=$coverage run_cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$out"

status=0
for target; do
    say "fuzz: $target, $seconds s"
    corpus=$out/corpus/$target
    mkdir -p "$corpus" "$out/found"
    log=$out/$target.log
    if "$out/$host/release/$target" -max_total_time="$seconds" -max_len="$LONGEST" -rss_limit_mb="$MEMORY" -timeout="$ONE_INPUT" \
        -artifact_prefix="$out/found/$target-" -print_final_stats=1 "$corpus" "fuzz/seeds/$target" >"$log" 2>&1; then
        awk '/number_of_executed_units/ { n = $2 } / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
            END { printf "    %d inputs, coverage %d\n", n, cov }' "$log" >&2
    else
        tail -n 40 "$log" >&2
        status=1
    fi
done
exit "$status"
