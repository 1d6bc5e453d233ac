#!/usr/bin/env bash
# Every kernel of kernels.def is defined in kernels/cuda, for old and new devices alike: a name without a kernel
# would only show when the program starts on a GPU. Preprocesses alone, so it needs no GPU compiler.
set -euo pipefail
cd "${SUBMIND_SOURCE:-$(dirname "$0")/../..}"
names() {
    "${CC:-cc}" -E -P -x c - <<'C' | tr -s ' \n' '\n' | grep .
#define FEW(pack, panels) few_##pack##_##panels
#define SOME(pack, tiles) some_##pack##_##tiles
#define WIDE(pack, columns) wide_##pack##_##columns
#define PACKED(op, pack) op##_##pack
#define PLAIN(name) name
#include "kernels/common/kernels.def"
C
}
wanted=$(names | sort)
[ "$(wc -l <<<"$wanted")" -gt 50 ] || { echo "kernels.def was not understood: $wanted"; exit 1; }
for arch in 800 900; do
    defined=$(for source in kernels/cuda/*.cu; do
        "${CC:-cc}" -E -P -x c++ -std=c++17 -I. -D__CUDA_ARCH__=$arch "$source"
    done | tr '\n' ' ' | grep -oE '__attribute__\(\(global\)\) void [^{;]*' | grep -oE '[A-Za-z0-9_]+ *\(const args' |
        sed 's/ *(const args//' | sort)
    missing=$(comm -23 <(echo "$wanted") <(echo "$defined"))
    [ -z "$missing" ] || { echo "kernels.def names what kernels/cuda lacks (arch $arch):" $missing; exit 1; }
done
echo "$(wc -l <<<"$wanted") kernels, all defined"
