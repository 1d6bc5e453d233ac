#!/usr/bin/env bash
# The point of the program, shown: a server on the built-in model and the three sub-minds of the example
# workspace. The first run pays for the bootstrap, the ones behind it take it from the cache, eight at once
# share it; then one that may not do what it is told, and one that runs out of time. Last the records.
# Usage: examples/demo.sh build/submind. Fails when a run does not end as it should.
set -euo pipefail

submind=$(realpath "${1:-build/submind}")
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
server=
ticker=
failed=0

finish() {
    for pid in $ticker $server; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

export SUBMIND_STATE_DIR="$scratch/state" # records of the demo only
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi

start_server() {
    # A cache of its own: what an earlier demo left on disk would make the first run a cached one.
    "$submind" serve --port 0 --cache-dir "$scratch/cache" >"$scratch/server.log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        url=$(sed -n 's/.* ready .*url=\(http[^ ]*\).*/\1/p' "$scratch/server.log" | head -n 1)
        [ -z "$url" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server did not start:" >&2
    cat "$scratch/server.log" >&2
    exit 1
}

title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

# A terminal gets a line of progress from the runs themselves; a log gets one every few seconds from their records.
start_ticker() {
    [ ! -t 2 ] || return 0
    (
        while sleep 5; do
            "$submind" runs --json --limit 8 2>/dev/null |
                sed -n 's/.*"outcome":"running","stage":"\([^"]*\)".*/    ... \1/p' | head -n 1
        done
    ) &
    ticker=$!
}
stop_ticker() {
    [ -z "$ticker" ] || kill "$ticker" 2>/dev/null || true
    ticker=
}

# run_one WORDS CODE COMMAND...: one sub-mind as a user sees it. What it leaves on record must hold WORDS.
run_one() {
    local words=$1 wanted=$2 code=0
    shift 2
    printf '\n%s$ submind run %s%s\n' "$dim" "${*@Q}" "$plain" | sed "s/'\([a-zA-Z0-9=.-]*\)'/\1/g"
    start_ticker
    "$submind" run --workspace "$workspace" --server "$url" "$@" || code=$?
    stop_ticker
    if [ "$code" != "$wanted" ]; then
        echo "that should have ended with code $wanted, not $code" >&2
        failed=$((failed + 1))
    elif ! "$submind" runs --json --limit 1 | grep -qF -- "$words"; then
        echo "that should have said \"$words\"" >&2
        failed=$((failed + 1))
    fi
}

# What is on record of the run before: the outcome with its reason, how far it came, what its tools said.
explain() {
    printf '\n%s%s%s\n%s$ submind runs show last%s\n' "$plain" "$1" "$plain" "$dim" "$plain"
    "$submind" runs show last | grep -vE '^(run|workspace|started by|stage) ' | sed 's/^/    /'
}

# Eight in one command; each says one line when it ends, and its report must hold its words.
crowd=(
    "check-service service=mosquitto|mosquitto is active"
    "check-service service=cups|cups is not active"
    "check-service service=samba|samba is active"
    "refresh-credential credential=mail-relay|token valid until"
    "refresh-credential credential=weather-feed|token valid until"
    "refresh-credential credential=registry|token valid until"
    "track-parcel shipment=NP-482913 carrier=Northpost|last seen in Porto"
    "track-parcel shipment=77120458 carrier=Swiftline|out for delivery"
)
run_crowd() {
    local words=() row
    for row in "${crowd[@]}"; do read -ra more <<<"${row%%|*}" && words+=("${more[@]}"); done
    printf '\n%s$ submind run --jobs 8 %s ...%s\n' "$dim" "${words[*]:0:6}" "$plain"
    start_ticker
    "$submind" run --workspace "$workspace" --server "$url" --jobs 8 "${words[@]}" >"$scratch/crowd" ||
        failed=$((failed + 1))
    stop_ticker
    cat "$scratch/crowd"
    for row in "${crowd[@]}"; do
        grep -qF -- "${row#*|}" "$scratch/crowd" || {
            echo "none of them said \"${row#*|}\"" >&2
            failed=$((failed + 1))
        }
    done
}

number() { [ "$1" = null ] && echo - || sed ':a; s/\B[0-9]\{3\}\>/,&/; ta' <<<"$1"; }
# A field of one record: field NAME < line
field() { sed -n "s/^.*\"$1\":\"\{0,1\}\([^\",}]*\).*$/\1/p"; }

# What the records say, oldest first.
print_table() {
    local line sum=0 n=0 cold warm
    printf '%-19s %-38s %7s %7s %9s %8s  %s\n' sub-mind inputs prompt cached 'answered' tokens/s outcome
    "$submind" runs --json --limit 0 | tac >"$scratch/records"
    while IFS= read -r line; do
        local name inputs prompt cached ttft tps outcome
        name=$(field name <<<"$line")
        inputs=$(sed -n 's/.*"inputs":{\([^}]*\)}.*/\1/p' <<<"$line" | tr -d '"' | tr ',:' ' =')
        [ -n "$name" ] || { name='(task)' && inputs=$(field task <<<"$line"); }
        prompt=$(field prompt_tokens <<<"$line") cached=$(field cached_tokens <<<"$line")
        ttft=$(field ttft_ms <<<"$line") tps=$(field gen_tps <<<"$line") outcome=$(field outcome <<<"$line")
        [ "$ttft" = null ] && ttft=- || ttft=$(awk -v ms="$ttft" 'BEGIN { printf "%.2f s", ms / 1000 }')
        [ "$tps" = null ] && tps=- || tps=$(awk -v t="$tps" 'BEGIN { printf(t > 0 ? "%.0f" : "-", t) }')
        printf '%-19s %-38s %7s %7s %9s %8s  %s\n' "$name" "$inputs" "$(number "$prompt")" \
            "$(number "$cached")" "$ttft" "$tps" "$outcome"
        n=$((n + 1))
        [ "$n" != 1 ] || cold=$ttft
        [ "$n" != 2 ] || warm=$ttft
        if [ "$n" -gt 3 ] && [ "$n" -le 11 ]; then sum=$((sum + $(field prefilled_tokens <<<"$line"))); fi
    done < <(sed 's/^[[ ]//; s/[],]*$//' "$scratch/records")
    printf '\nprompt and cached: tokens; answered: until the first token of the answer.\n'
    printf 'The bootstrap cost the first run %s; the second began to answer after %s.\n' "$cold" "$warm"
    printf 'The eight at once computed %s tokens of prompt together, their tools'"'"' answers included.\n' \
        "$(number "$sum")"
}

workspace=$here/workspace
start_server
title "A server on the model that ships inside the binary: $url"

title "One after the other. The first reads a bootstrap of about 15,000 tokens; nobody does so again."
run_one "mosquitto is active" 0 check-service service=mosquitto
run_one "token valid until" 0 refresh-credential credential=mail-relay
run_one "last seen in Porto" 0 track-parcel shipment=NP-482913 carrier=Northpost

title "Eight at once."
run_crowd

title "One that may not do what it is told."
run_one "not allowed: whoami" 1 "run whoami"
explain "It ended with exit code 1. No rule of submind.yaml lets it run that command, so nothing ran:"

title "One whose bootstrap is new, and who has two seconds."
cp -rP "$here/workspace" "$scratch/workspace"
{ echo "# Another house"; cat "$here/workspace/AGENTS.md"; } >"$scratch/workspace/AGENTS.md"
workspace=$scratch/workspace
code=0
printf '\n%s$ submind run --timeout 2 check-service%s\n' "$dim" "$plain"
"$submind" run --workspace "$workspace" --server "$url" --timeout 2 check-service || code=$?
case $code in
124) explain "It ended with exit code 124, and says where the time went and what was missing:" ;;
0) echo "(this machine is so quick that it had time enough)" ;;
*) failed=$((failed + 1)) ;;
esac

title "What it cost."
echo
print_table

title "The records: submind runs; submind runs show ID tells everything about one. The demo's own go when it ends."
echo
"$submind" runs --limit 0
if [ "$failed" -gt 0 ]; then
    echo "$failed of these did not end as they should" >&2
    exit 1
fi

program=$submind
[ "$(command -v submind 2>/dev/null)" = "" ] || program=submind
title "From here, with a model that knows more than these chores:"
cat <<END

    $program doctor                                        is this machine ready?
    $program pull hf:Qwen/Qwen3-4B-GGUF:Q4_K_M             or a larger one: doctor --model FILE says what fits
    $program serve --model hf:Qwen/Qwen3-4B-GGUF:Q4_K_M    for any OpenAI client: http://127.0.0.1:8080/v1
    $program run --workspace DIR "what to do"              a folder with AGENTS.md and submind.yaml: README.md
END
