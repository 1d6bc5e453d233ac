#!/usr/bin/env bash
# MAP.md is true: every file and every function it names exists, and it names every source file.
set -euo pipefail
bad=0
named=0
# `path/file.c` and `function_name()` in back quotes
while read -r path; do
    named=$((named + 1))
    [ -e "$path" ] || { echo "MAP.md names $path, which does not exist"; bad=1; }
done < <(grep -oE '`[A-Za-z0-9_./-]+\.(c|h|def|cu|S|sh|mjs)`' MAP.md | tr -d '`' | sort -u)
while read -r function; do
    named=$((named + 1))
    grep -rqE "\b${function}\(" src kernels || { echo "MAP.md names $function(), which does not exist"; bad=1; }
done < <(grep -oE '`[a-z][a-z0-9_]+\(\)`' MAP.md | tr -d '`()' | sort -u)
# `file.c`: `f()`, `g()`: these stand in that file
while read -r file function; do
    named=$((named + 1))
    grep -qE "\b${function}\(" "$file" || { echo "MAP.md: $function() is not in $file"; bad=1; }
done < <(grep -oE '`[a-z0-9_/]+\.c`: `[a-z0-9_]+\(\)`(, `[a-z0-9_]+\(\)`)*' MAP.md | tr -d '`:,()' |
    awk '{ for (i = 2; i <= NF; i++) print $1, $i }')
while read -r file; do
    grep -qF "${file%.*}" MAP.md || { echo "MAP.md does not name $file"; bad=1; }
done < <(git ls-files 'src/*.c' 'kernels/*.cu')
[ "$named" -gt 30 ] || { echo "only $named names seen: the check itself is broken"; exit 1; }
exit $bad
