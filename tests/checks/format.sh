#!/usr/bin/env bash
# clang-format decides (STYLE.md 4), and files stay within 1,200 lines (STYLE.md 2).
# Device code and port.h are laid out by hand, for their inline assembly. The version is
# pinned by what Debian 12 ships, since versions disagree about the same settings.
set -euo pipefail
command -v clang-format >/dev/null || { echo "skipped: no clang-format"; exit 77; }
clang-format --version | grep -q 'version 14\.' || { echo "skipped: not clang-format 14"; exit 77; }
mapfile -t files < <(git ls-files '*.c' '*.h' ':!kernels/cuda' ':!kernels/common/port.h')
bad=0
# One call for all files: starting it takes longer than reading one.
if ! complaints=$(clang-format --dry-run -Werror "${files[@]}" 2>&1); then
    bad=1
    files_bad=$(sed -n 's/^\([^ :]*\.[ch]\):[0-9]*:[0-9]*: error: .*/\1/p' <<<"$complaints" | sort -u)
    while read -r file; do
        echo "${file:-$complaints} is not formatted: clang-format -i $file"
    done <<<"$files_bad"
fi
while read -r lines file; do
    [ "$file" = total ] || [ "$lines" -le 1200 ] || { echo "$file has $lines lines: split it by concept"; bad=1; }
done < <(wc -l "${files[@]}")
exit $bad
