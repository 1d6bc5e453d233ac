#!/usr/bin/env bash
# The layer law (design: an arrow means "may include"), checked against every #include of src/.
# A line here is a layer and the first folders of what its files may include.
set -euo pipefail
declare -A may=(
    [base]="base"
    [text]="text base"
    [model]="model base kernels"
    [compute]="compute base kernels"
    [engine]="engine text model compute base kernels"
    [host]="host base text engine/engine.h"
    [serve]="serve base text engine/engine.h"
    [agent]="agent base text engine/engine.h"
    [cmd]="cmd serve agent host base text engine/engine.h"
)
bad=0
checked=0
for layer in "${!may[@]}"; do
    while IFS=: read -r file line text; do
        target=${text#*\"} target=${target%%\"*}
        checked=$((checked + 1))
        ok=0
        for allowed in ${may[$layer]}; do
            case $target in "$allowed" | "$allowed"/*) ok=1 ;; esac
        done
        if [ $ok = 0 ]; then
            echo "$file:$line: layer $layer may not include \"$target\""
            bad=1
        fi
    done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "src/$layer" --include='*.c' --include='*.h' 2>/dev/null || true)
done
[ "$checked" -gt 50 ] || { echo "only $checked includes seen: the check itself is broken"; exit 1; }

# Style 5: no file name twice. Style 9/21: exit() only in cmd/, getenv only in the settings parser.
twice=$(git ls-files src kernels tests '*.sh' | grep -E '\.(c|h|cu|comp|mjs|sh)$' | sed 's|.*/||' | sort | uniq -d)
[ -z "$twice" ] || { echo "file names that appear twice: $twice"; bad=1; }
if grep -rnwE 'exit|abort' src --include='*.c' | grep -vE 'src/cmd/|_exit|//|\*' | grep -E '\b(exit|abort)\('; then
    echo "exit() and abort() belong to cmd/ only"; bad=1
fi
if grep -rnE '\b(getenv|secure_getenv)\(' src --include='*.c' | grep -v 'src/cmd/options.c'; then
    echo "getenv() belongs to the settings table (src/cmd/options.c) only"; bad=1
fi
if grep -rnE '\bprintf\(|\bputs\(' src --include='*.c' | grep -vE 'src/cmd/'; then
    echo "printf() belongs to cmd/ only"; bad=1
fi
exit $bad
