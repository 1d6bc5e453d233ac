#!/usr/bin/env bash
# The device sources compile for AMD (HIP, gfx1151) and, without any CUDA, for NVIDIA (sm_80, sm_90a).
# Compiled only; skipped where clang-19 is missing.
set -euo pipefail
cd "${SUBMIND_SOURCE:-$(dirname "$0")/../..}"
clang=$(command -v clang-22 || command -v clang-21 || command -v clang-20 || command -v clang-19 || true)
if [ -z "$clang" ]; then
    echo "skipped: no clang-19 to compile device code with"
    exit 77
fi
for source in kernels/cuda/*.cu; do
    "$clang" -x hip --cuda-device-only --offload-arch=gfx1151 -nogpulib -nogpuinc -I. -std=c++17 -O1 -S \
        -o /dev/null "$source"
    for arch in sm_80 sm_90a; do
        # where clang made the build's kernels it has compiled this
        [ ! "${SUBMIND_BUILD:-build}/kernels/$(basename "$source" .cu).$arch.ptx" -nt "$source" ] || continue
        "$clang" -x cuda --cuda-device-only --cuda-gpu-arch=$arch -nocudainc -nocudalib \
            -Wno-unknown-cuda-version -I. -std=c++17 -O1 -S -o /dev/null "$source"
    done
done
echo "device sources compile for gfx1151, sm_80 and sm_90a"
