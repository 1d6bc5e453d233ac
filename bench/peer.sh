#!/usr/bin/env bash
# The CPU's paired table: this program and llama.cpp (built natively, its folder of binaries given) take
# turns on the same machine and model; medians and their ratio.
#   bench/peer.sh build/bench/bench_net LLAMA_BIN MODEL.gguf [ROW ...]
# Rows: pp512 pp4096 (prefill), tg32 (short decode), deep or depth (decode behind 4,096 tokens), shared (eight
# sequences decode behind one shared prefix of 4,096 tokens), server (seconds until the first token of a
# prompt of PROMPT=8192 tokens that is not cached, over HTTP, both servers up; SUBMIND is the program, default
# ../submind beside bench_net's folder; also each one's RssAnon); default: pp512 tg32. PAIRS=5 THREADS=2;
# LONG=4096, for a quick look less.
# Each pair is printed when it is there and kept in RESULTS (default: TMPDIR's peer-results.txt), a line a pair; what
# stands there is not measured again, so that an interrupted table goes on. Begin a new one with a new file.
set -euo pipefail
ours=$1 peer=$2 model=$3
shift 3
rows=("$@")
[ ${#rows[@]} -gt 0 ] || rows=(pp512 tg32)
threads=${THREADS:-2} pairs=${PAIRS:-5} long=${LONG:-4096}

run_ours() { # PROMPT:DECODE[:SEQUENCES], first letters of the line wanted
    "$ours" "$model" "${DEVICE:-cpu}" "$threads" "$1" | awk -v want="$2" '
        index($1, want) == 1 { for (i = 2; i <= NF; i++) if ($i ~ /^t\/s/) print $(i - 1) }'
}
run_bench() { # llama-bench's tokens per second
    "$peer/llama-bench" -m "$model" -t "$threads" -fa 1 -r 1 -o json "$@" 2>/dev/null |
        awk -F'[:,]' '/"avg_ts"/ { print $2 + 0 }'
}
run_batched() { # decode t/s in all of eight sequences on one prefix
    "$peer/llama-batched-bench" -m "$model" -t "$threads" -fa on -c $((2 * long)) -kvu -npp "$long" -ntg 32 -npl 8 \
        -pps 2>/dev/null | awk -F'|' -v n="$long" '$2 + 0 == n { print $9 + 0 }'
}
one_ours() {
    case $1 in
    pp512) run_ours 512:0 pp ;;
    pp4096) run_ours "$long:0" pp ;;
    tg32) run_ours 0:32 tg ;;
    deep | depth) run_ours "$long:32" tg ;;
    shared) run_ours "$long:32:8" tg ;;
    server) ask_server 0 "$2" ;;
    esac
}
one_peer() {
    case $1 in
    pp512) run_bench -p 512 -n 0 ;;
    pp4096) run_bench -p "$long" -n 0 --no-warmup ;;
    tg32) run_bench -p 0 -n 32 ;;
    deep | depth) run_bench -p 0 -n 32 -d "$long" --no-warmup ;;
    shared) run_batched ;;
    server) ask_server 1 "$2" ;;
    esac
}
# Each server answers one completion of one token for prompts of random token ids, so that nothing is cached.
ports=(0 0) pids=()
stop_servers() { [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true; }
trap stop_servers EXIT
start_servers() {
    local n=${PROMPT:-8192} ctx i port=$((20000 + $$ % 20000))
    ctx=$((n + 512))
    "${SUBMIND:-$(dirname "$ours")/../submind}" serve --model "$model" --device "${DEVICE:-cpu}" --threads "$threads" \
        --ctx "$ctx" --cache-dir off --port "$port" >/dev/null 2>&1 &
    pids+=($!)
    "$peer/llama-server" -m "$model" -t "$threads" -fa on -c "$ctx" -np 1 --port $((port + 1)) >/dev/null 2>&1 &
    pids+=($!)
    ports=("$port" $((port + 1)))
    for i in 0 1; do
        for ((t = 0; t < 240; t++)); do
            curl -sf "http://127.0.0.1:${ports[$i]}/health" >/dev/null && break
            sleep 0.25
        done
    done
}
ask_server() { # 0 ours, 1 the peer's; seed
    awk -v n="${PROMPT:-8192}" -v seed="$2" 'BEGIN { srand(seed); printf "{\"max_tokens\":1,\"temperature\":0,\"prompt\":["
        for (i = 0; i < n; i++) printf "%s%d", i ? "," : "", 1000 + int(rand() * 100000); print "]}" }' |
        curl -sf -o /dev/null -w '%{time_total}\n' -H 'Content-Type: application/json' --data-binary @- \
            "http://127.0.0.1:${ports[$1]}/v1/completions"
}
rss() { awk '/RssAnon/ { printf "%d MB", $2 / 1024 }' "/proc/${pids[$1]}/status"; }
median() { sort -g | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'; }

# What pair i of a row gave: from the file of results, or measured now. Sets mine and theirs.
measure_pair() {
    local row=$1 i=$2 key="$(basename "$model") $threads $1 $2"
    read -r mine theirs < <(awk -v key="$key" '
        index($0, key " ") == 1 { split(substr($0, length(key) + 2), a, " "); print a[1], a[2]; exit }' "$results") || true
    [ -z "$mine" ] || return 0
    [ "$row" != server ] || [ ${#pids[@]} -gt 0 ] || start_servers
    mine=$(one_ours "$row" "$i")
    theirs=$(one_peer "$row" "$i")
    if [ -z "$mine" ] || [ -z "$theirs" ]; then
        echo "$row, pair $i: no figure (ours '$mine', the peer's '$theirs')" >&2
        return 1
    fi
    echo "$key $mine $theirs" >>"$results"
}
summary() { # "median [lowest .. highest]" of the lines read
    local list
    list=$(sort -g)
    echo "$(median <<<"$list") [$(head -1 <<<"$list") .. $(tail -1 <<<"$list")]"
}

results=${RESULTS:-${TMPDIR:-/tmp}/peer-results.txt}
touch "$results"
grep -m1 'model name' /proc/cpuinfo || true
echo "$(basename "$model"), $threads threads, $pairs pairs, t/s (server: seconds): median [lowest .. highest]"
for row in "${rows[@]}"; do
    all_mine='' all_theirs=''
    for ((i = 0; i < pairs; i++)); do
        mine='' theirs=''
        measure_pair "$row" "$i" || continue
        all_mine+="$mine"$'\n' all_theirs+="$theirs"$'\n'
        echo "  $row, pair $((i + 1)) of $pairs: Submind $mine, peer $theirs"
    done
    [ -n "$all_mine" ] || continue
    mine=$(printf '%s' "$all_mine" | summary) theirs=$(printf '%s' "$all_theirs" | summary)
    ratio=$(echo "${mine%% *} ${theirs%% *}" | awk -v row="$row" '{ printf "%.2f", row == "server" ? $2 / $1 : $1 / $2 }')
    if [ "$row" = server ] && [ ${#pids[@]} -gt 0 ]; then
        ratio+=", RssAnon $(rss 0) and $(rss 1)"
        stop_servers
        pids=()
    fi
    echo "$row: Submind $mine, peer $theirs, ratio $ratio"
done
