#!/usr/bin/env bash
# The CPU's paired table: this program and llama.cpp (built natively, its folder of binaries given) take
# turns on the same machine and model; medians and their ratio.
#   bench/peer.sh build/bench/bench_net LLAMA_BIN MODEL.gguf [ROW ...]
# Rows: pp512 pp4096 (prefill), tg32 (short decode), deep (decode behind 4,096 tokens), shared (eight
# sequences decode behind one shared prefix of 4,096 tokens); default: pp512 tg32. PAIRS=5 THREADS=2.
set -euo pipefail
ours=$1 peer=$2 model=$3
shift 3
rows=("$@")
[ ${#rows[@]} -gt 0 ] || rows=(pp512 tg32)
threads=${THREADS:-2} pairs=${PAIRS:-5}

run_ours() { # PROMPT:DECODE[:SEQUENCES], first letters of the line wanted
    "$ours" "$model" "${DEVICE:-cpu}" "$threads" "$1" | awk -v want="$2" '
        index($1, want) == 1 { for (i = 2; i <= NF; i++) if ($i ~ /^t\/s/) print $(i - 1) }'
}
run_bench() { # llama-bench's tokens per second
    "$peer/llama-bench" -m "$model" -t "$threads" -fa 1 -r 1 -o json "$@" 2>/dev/null |
        awk -F'[:,]' '/"avg_ts"/ { print $2 + 0 }'
}
run_batched() { # decode t/s in all of eight sequences on one prefix
    "$peer/llama-batched-bench" -m "$model" -t "$threads" -fa on -c 8192 -kvu -npp 4096 -ntg 32 -npl 8 \
        -pps 2>/dev/null | awk -F'|' '$2 + 0 == 4096 { print $9 + 0 }'
}
one_ours() {
    case $1 in
    pp512) run_ours 512:0 pp ;;
    pp4096) run_ours 4096:0 pp ;;
    tg32) run_ours 0:32 tg ;;
    deep) run_ours 4096:32 tg ;;
    shared) run_ours 4096:32:8 tg ;;
    esac
}
one_peer() {
    case $1 in
    pp512) run_bench -p 512 -n 0 ;;
    pp4096) run_bench -p 4096 -n 0 --no-warmup ;;
    tg32) run_bench -p 0 -n 32 ;;
    deep) run_bench -p 0 -n 32 -d 4096 --no-warmup ;;
    shared) run_batched ;;
    esac
}
median() { sort -g | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

grep -m1 'model name' /proc/cpuinfo || true
echo "$(basename "$model"), $threads threads, $pairs pairs, t/s: median [lowest .. highest]"
for row in "${rows[@]}"; do
    mine='' theirs=''
    for ((i = 0; i < pairs; i++)); do
        mine+="$(one_ours "$row")"$'\n'
        theirs+="$(one_peer "$row")"$'\n'
    done
    printf '%s' "$mine" | sort -g >"${TMPDIR:-/tmp}/peer-mine.$$"
    printf '%s' "$theirs" | sort -g >"${TMPDIR:-/tmp}/peer-theirs.$$"
    for f in mine theirs; do
        list="${TMPDIR:-/tmp}/peer-$f.$$"
        printf -v "$f" '%s [%s .. %s]' "$(median <"$list")" "$(head -1 "$list")" "$(tail -1 "$list")"
        rm -f "$list"
    done
    echo "$row: Submind $mine, peer $theirs, ratio $(echo "${mine%% *} ${theirs%% *}" | awk '{ printf "%.2f", $1 / $2 }')"
done
