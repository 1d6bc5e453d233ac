#!/usr/bin/env bash
# make bench: the workload that matters, on the built-in model or on the one that MODEL names, beside
# the server that PEER names (a URL), if any.
#   MODEL=Qwen3-32B-Q4_K_M.gguf PEER=http://127.0.0.1:9000 make bench
set -euo pipefail
binary=$1
arguments=(--prompt-tokens "${TOKENS:-8000}" --runs "${RUNS:-3}")
[ -z "${MODEL:-}" ] || arguments+=(--model "$MODEL")
[ -z "${PEER:-}" ] || arguments+=(--against "$PEER")
"$binary" --version
uname -srm
grep -m1 'model name' /proc/cpuinfo || true
exec "$binary" bench seed "${arguments[@]}"
