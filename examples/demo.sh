#!/usr/bin/env bash
# The point of the program in one table: a server on the built-in model, three sub-minds one after the
# other and then eight at once on the example workspace. The first one pays for the bootstrap, the others
# take it from the cache. Then one that fails and one that runs out of time, and the records of them all.
# Usage: examples/demo.sh build/submind. Fails when a run does not end as it should.
set -euo pipefail

submind=$(realpath "${1:-build/submind}")
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
server=

finish() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

export SUBMIND_STATE_DIR="$scratch/state" # records of the demo only

# What is asked (a definition of subminds/ with its inputs, or a task in words), and what the report must
# hold.
tasks=(
    "check-service service=mosquitto|mosquitto is active"
    "refresh-credential credential=mail-relay|mail-relay credential was refreshed: token valid until"
    "track-parcel shipment=NP-482913 carrier=Northpost|in transit, last seen in Porto"
)
crowd=(
    "${tasks[@]}"
    "check-service service=cups|cups is not active"
    "check the health of paperless|degraded"
    "refresh-credential credential=weather-feed|weather-feed credential was refreshed: token valid until"
    "track-parcel shipment=77120458 carrier=Swiftline|out for delivery"
    "what is the first item in notes/garden.md?|cut the fig back"
)

start_server() {
    "$submind" serve --port 0 >"$scratch/server.log" 2>&1 &
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

# run_task FILE TASK [flags]: one sub-mind; its JSON goes to FILE, its exit code to FILE.code.
run_task() {
    local file=$1 code=0 words=("$2")
    [[ $2 != *=* ]] || read -ra words <<<"$2"
    shift 2
    "$submind" run --workspace "$here/workspace" --server "$url" --json "$@" "${words[@]}" \
        >"$file" 2>"$file.err" || code=$?
    echo "$code" >"$file.code"
}

# A field of the flat part of a run's JSON: field FILE NAME
field() { sed -n "s/^.*\"$2\":\"\{0,1\}\([^\",}]*\).*$/\1/p" <(sed 's/,"tool_calls":.*//' "$1"); }
report() { sed -n 's/.*"report":"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$1"; }

failed=0
# print_row FILE "TASK|WORDS" [OUTCOME]: a line of the table, checked.
print_row() {
    local file=$1 task=${2%%|*} words=${2#*|} wanted=${3:-done} outcome ttft
    outcome=$(field "$file" outcome)
    if [ "$outcome" != "$wanted" ]; then
        outcome="${outcome:-no answer} (exit code $(cat "$file.code"))"
        failed=$((failed + 1))
        cat "$file.err" >&2
    elif [[ "$(report "$file")$(field "$file" error)" != *"$words"* ]]; then
        outcome="wrong report: $(report "$file")"
        failed=$((failed + 1))
    fi
    ttft=$(field "$file" ttft_ms)
    printf '| %-51s | %6s | %6s | %8.2f s | %8.0f t/s | %s |\n' "$task" \
        "$(field "$file" prompt_tokens)" "$(field "$file" cached_tokens)" \
        "$(awk -v ms="${ttft/null/0}" 'BEGIN { print ms / 1000 }')" "$(field "$file" gen_tps)" "$outcome"
}

head_of_table() {
    printf '\n%s\n\n' "$1"
    printf '| %-51s | %6s | %6s | %10s | %12s | %s |\n' Task Prompt Cached TTFT Generation Outcome
    printf '|%s|%s|%s|%s|%s|%s|\n' ----------------------------------------------------- -------: -------: \
        -----------: -------------: ---------
}

start_server
echo "server: $url, $(sed -n 's/.* ready \(model=[^ ]*\).*/\1/p' "$scratch/server.log" | head -n 1)"

head_of_table "Three sub-minds, one after the other: the first is cold."
i=0
for row in "${tasks[@]}"; do
    i=$((i + 1))
    run_task "$scratch/one.$i" "${row%%|*}"
    print_row "$scratch/one.$i" "$row"
done

head_of_table "Eight at once."
i=0
pids=()
for row in "${crowd[@]}"; do
    i=$((i + 1))
    run_task "$scratch/crowd.$i" "${row%%|*}" &
    pids+=($!)
done
wait "${pids[@]}"
i=0
prefilled=0
for row in "${crowd[@]}"; do
    i=$((i + 1))
    print_row "$scratch/crowd.$i" "$row"
    n=$(field "$scratch/crowd.$i" prefilled_tokens)
    prefilled=$((prefilled + ${n:-0}))
done
printf '\nPrompt tokens computed for all eight, tool results included: %d.\n' "$prefilled"

printf '\nWhat they reported:\n'
i=0
for row in "${crowd[@]}"; do
    i=$((i + 1))
    printf '  %s\n' "$(report "$scratch/crowd.$i")"
done

head_of_table "One that may not do what it is told, and one whose bootstrap is new and whose time is short."
run_task "$scratch/refused" "run whoami"
print_row "$scratch/refused" "run whoami|" failed
cp -rP "$here/workspace" "$scratch/workspace"
{ echo "# Another house"; cat "$here/workspace/AGENTS.md"; } >"$scratch/workspace/AGENTS.md"
here=$scratch
run_task "$scratch/late" "check-service service=mosquitto" --timeout 2
case $(field "$scratch/late" outcome) in # a machine that is that quick has nothing to show here
done) print_row "$scratch/late" "check-service service=mosquitto|mosquitto is active" ;;
*) print_row "$scratch/late" "check-service service=mosquitto|" timeout ;;
esac
printf '  %s\n  %s\n' "$(cat "$scratch/refused.err")" "$(cat "$scratch/late.err")"

printf '\nThe records (submind runs; submind runs show ID tells everything about one):\n\n'
"$submind" runs --limit 6 | cut -c1-150
if [ "$failed" -gt 0 ]; then
    echo "$failed runs failed" >&2
    exit 1
fi
