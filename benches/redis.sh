#!/usr/bin/env bash
# Side by side with redis-server, by redis-benchmark: GET and SET of 100-byte values over a million keys,
# 50 connections, pipelines of 1, 16 and 100, with a sync a second on both, and with every write synced on
# both. The servers take turns, and the medians of ROUNDS rounds are what is shown.
#
#   benches/redis.sh [ROUNDS [REQUESTS]]
#
# Needs redis-server and redis-benchmark on the path. Everything is in a directory that is removed, on the
# file system of the current directory; both servers listen on loopback and are ended.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5}
requests=${2:-1000000}
for program in redis-server redis-benchmark; do
    if ! command -v "$program" >/dev/null; then
        echo "redis.sh: skipped: there is no $program on the path (Debian: redis-server, redis-tools)" >&2
        exit 0
    fi
done
cargo build --release --bin crabkv
crabkv=${CARGO_TARGET_DIR:-target}/release/crabkv

scratch=$(mktemp -d "$PWD/redis-bench.XXXXXX")
servers=()
finish() {
    for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${servers[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT

redis_port=17801
crabkv_port=17802

# start FSYNC CRABKV_OPTION...: both servers, empty.
start() {
    local fsync=$1
    shift
    mkdir -p "$scratch/redis-$fsync"
    redis-server --port $redis_port --bind 127.0.0.1 --dir "$scratch/redis-$fsync" --save "" \
        --appendonly yes --appendfsync "$fsync" --loglevel warning >/dev/null &
    servers+=($!)
    "$crabkv" serve --addr 127.0.0.1:$crabkv_port --data-dir "$scratch/crabkv-$fsync" --quiet "$@" &
    servers+=($!)
    for port in $redis_port $crabkv_port; do
        until redis-cli -p $port ping >/dev/null 2>&1; do sleep 0.1; done
        # The million keys, so that GET finds what it asks for.
        redis-benchmark -p $port -c 50 -P 100 -n 3000000 -r 1000000 -d 100 -t set --csv >/dev/null
    done
}

stop() {
    for pid in "${servers[@]}"; do kill "$pid"; done
    for pid in "${servers[@]}"; do wait "$pid" || true; done
    servers=()
}

# once PORT TEST PIPELINE: requests a second, and the 99th percentile in ms.
once() {
    redis-benchmark -p "$1" -c 50 -t "$2" -P "$3" -n "$requests" -r 1000000 -d 100 --csv |
        tail -1 | tr -d '"' | cut -d, -f2,7
}

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

compare() {
    local name=$1
    for pipeline in 1 16 100; do
        for test in get set; do
            : >"$scratch/redis.csv"
            : >"$scratch/crabkv.csv"
            for _ in $(seq "$rounds"); do
                once $redis_port "$test" "$pipeline" >>"$scratch/redis.csv"
                once $crabkv_port "$test" "$pipeline" >>"$scratch/crabkv.csv"
            done
            local redis ours redis_p99 our_p99
            redis=$(cut -d, -f1 "$scratch/redis.csv" | median)
            ours=$(cut -d, -f1 "$scratch/crabkv.csv" | median)
            redis_p99=$(cut -d, -f2 "$scratch/redis.csv" | median)
            our_p99=$(cut -d, -f2 "$scratch/crabkv.csv" | median)
            awk -v name="$name" -v pipeline="$pipeline" -v test="${test^^}" -v redis="$redis" -v ours="$ours" \
                -v redis_p99="$redis_p99" -v our_p99="$our_p99" 'BEGIN {
                printf "| %s | %s | %d | %d | %d | %.2f | %.2f | %.2f |\n",
                    name, test, pipeline, redis, ours, ours / redis, redis_p99, our_p99 }'
        done
    done
}

echo "| synced | | pipeline | redis /s | crabkv /s | ratio | redis p99 ms | crabkv p99 ms |"
echo "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
start everysec --sync-interval 1s
compare "every second"
stop
start always
compare "every write"
