#!/usr/bin/env bash
# Instructions of two fixed small cases, by callgrind: comparable between machines and however busy they
# are. The AVX2 kernels, since valgrind does not know AVX-512; the built-in model; one thread; both
# cases include opening the model and a warming prompt of 512 tokens.
#   bench/count.sh build/bench/bench_net models/submind-demo-Q8_0.gguf
set -euo pipefail
bench=$1 model=$2
for case in 64:0 0:8; do
    out=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" "$model" cpu:avx2 1 "$case" 2>&1 >/dev/null)
    echo "$case $(awk '/Collected/ { print $NF }' <<<"$out") instructions"
done
