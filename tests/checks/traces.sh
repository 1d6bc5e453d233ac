#!/usr/bin/env bash
# The engine's choice of what to evict must find more than plain LRU on the trace of an agent box, at
# every size at which the trace does not fit (bench/traces, bench/bench_tree.c).
set -euo pipefail
bench=$SUBMIND_BUILD/bench/bench_tree
[ -x "$bench" ] && command -v python3 >/dev/null || { echo "skipped: no bench_tree or no python3"; exit 77; }
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
for seed in 1 2 3; do
    python3 bench/traces/agents.py --hours 4 --seed $seed > "$trace"
    "$bench" check "$trace" 30000 60000 90000
done
