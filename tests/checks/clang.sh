#!/usr/bin/env bash
# clang compiles the files whose blocks of assembly take most registers, as CMakeLists.txt has them compiled for a
# release: operands are the compiler's to place, and with optimisation clang has found fewer places than
# gcc. `make check` builds all with clang, but under sanitizers and without a release's options.
set -euo pipefail
cd "${SUBMIND_SOURCE:-$(dirname "$0")/../..}"
if [ "$(uname -m)" != x86_64 ] || ! command -v clang >/dev/null; then
    echo "skipped: no clang, or no x86"
    exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags=(-std=gnu11 -g -O2 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Isrc -fno-omit-frame-pointer -fno-math-errno
    -Wall -Wextra -Wpedantic -Werror -Wno-overlength-strings -mavx2 -mfma -mf16c -mbmi2 -O3 -ffp-contract=off)
for source in src/compute/cpu/{attend,packed,peak}_avx512.c src/compute/cpu/{attend,peak}_avx2.c; do
    more=()
    case $source in
    *_avx512.c) more=(-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni) ;;
    esac
    clang "${flags[@]}" "${more[@]}" -c "$source" -o "$out/$(basename "$source").o" &
done
for job in $(jobs -p); do wait "$job"; done
