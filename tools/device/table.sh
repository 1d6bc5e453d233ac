#!/usr/bin/env bash
# The table of bench/SPEED.md: our server and a peer's on one GPU, the same models and clients, one after
# the other. Models of random weights in the real shape are made here; they are deleted as it goes on.
#
#   tools/device/table.sh SUBMIND PEER_SERVER SYNTH_GGUF.py SEED_WORKLOAD.py [TOKENIZER_DIR] [TYPES] [SHAPE]
#
# PEER_SERVER is a llama-server built for this GPU, or "none". TYPES: "Q4_K_M Q8_0" by default. A model that is
# in TABLE_DIR already, as SHAPE-TYPE.gguf, is used as it is. TABLE_PREFILL: the --prefill-type of our rows, "exact
# fp8" by default; the agents run with the first of them. PEER_ALONE: not empty, no agents with the peer (100 s).
set -u
submind=$1 peer=$2 synth=$3 seed=$4 tokenizer=${5:-} types=${6:-Q4_K_M Q8_0} shape=${7:-32b}
here=$(cd "$(dirname "$0")" && pwd)
work=${TABLE_DIR:-/tmp/table} out=${OUT:-$work}
mkdir -p "$work"

wait_ready() { # PORT PID
    for _ in $(seq 600); do
        python3 - "$1" 2>/dev/null <<'P' && return 0
import sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=2).read()
P
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.25
    done
    return 1
}

measure() { # NAME PORT COMMAND...
    local name=$1 port=$2 start pid
    shift 2
    start=$(date +%s%N)
    "$@" >"$out/$name.log" 2>&1 &
    pid=$!
    if wait_ready "$port" "$pid"; then
        echo "== $name (ready after $((($(date +%s%N) - start) / 1000000)) ms)"
        timeout 150 python3 "$seed" "http://127.0.0.1:$port" --tokens 14000 --runs 3
        [ -n "${ALONE:-}" ] || timeout 150 python3 "$here/agents.py" "http://127.0.0.1:$port"
    else
        echo "== $name did not start:"
        tail -5 "$out/$name.log"
    fi
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
for type in $types; do
    model=$work/$shape-$type.gguf
    [ -s "$model" ] || python3 "$synth" "$model" --shape "$shape" --type "$type" ${tokenizer:+--tokenizer "$tokenizer"}
    ALONE=
    for prefill in ${TABLE_PREFILL:-exact fp8}; do
        measure "submind-$type-$prefill" 8091 "$submind" serve --model "$model" --device cuda --port 8091 \
            --ctx 32768 --cache-dir off --prefill-type "$prefill"
        ALONE=1
    done
    ALONE=${PEER_ALONE:-}
    if [ "$peer" != none ]; then
        measure "peer-$type" 8092 "$peer" -m "$model" -ngl 99 -fa on -np 8 -c 262144 -ub 2048 --port 8092
    fi
    [ -n "${KEEP_MODELS:-}" ] || rm -f "$model"
done
