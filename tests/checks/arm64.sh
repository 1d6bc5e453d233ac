#!/usr/bin/env bash
# The CPU backend on aarch64: compiled by Debian's cross compiler and run under qemu, without any library
# but the C one. Bit for bit against the statement of packed arithmetic (test_packed), and the ops tests
# over the seam against the reference device, with each instruction set that qemu is told to have.
# Skipped where gcc-aarch64-linux-gnu, libc6-dev-arm64-cross or qemu-user is missing.
set -euo pipefail
cd "${SUBMIND_SOURCE:-$(dirname "$0")/../..}"
gcc=$(command -v aarch64-linux-gnu-gcc || true)
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
root=/usr/aarch64-linux-gnu
if [ -z "$gcc" ] || [ -z "$qemu" ] || [ ! -e $root/include/stdio.h ]; then
    echo "skipped: no cross compiler for aarch64 or no qemu to run it (scripts/deps test installs both)"
    exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

flags=(-std=gnu11 -g -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -D_GNU_SOURCE
    -D_FILE_OFFSET_BITS=64 -DXXH_INLINE_ALL '-DSUBMIND_XXHASH_HEADER=<xxhash.h>'
    -I. -Isrc -Itests -Itests/arm64)
# As CMakeLists.txt compiles them.
flags_of() {
    case $1 in
    *_dotprod.c | */attend_neon.c) echo "-O3 -march=armv8.2-a+dotprod" ;;
    *_i8mm.c) echo "-O3 -march=armv8.2-a+dotprod+i8mm" ;;
    */kernels_c.c) echo "-O3" ;;
    *) echo "-O2" ;;
    esac
}
cat >"$out/no_images.c" <<'END'
#include "compute/gpu.h"
const struct gpu_image gpu_images[] = {{0}};
const char gpu_images_by[] = "none";
END
compile() {
    # shellcheck disable=SC2046 # several flags
    "$gcc" "${flags[@]}" $(flags_of "$1") -c "$1" -o "$out/$(basename "$1" .c).o"
}
for source in src/base/*.c src/compute/*.c src/compute/cpu/*.c tests/lib/ops_rig.c "$out/no_images.c"; do
    compile "$source" &
    [ "$(jobs -r | wc -l)" -lt "$(nproc)" ] || wait -n
done
wait
aarch64-linux-gnu-ar rcs "$out/all.a" "$out"/*.o
for name in packed rows linear attend_kernels attention; do
    "$gcc" "${flags[@]}" -O2 tests/ops/test_$name.c "$out/all.a" -o "$out/test_$name" -lm -lpthread -ldl
done

run() { # PROCESSOR TEST [tests whose name holds this [devices that are left out]]
    echo "== $2 ${3:-} on $1"
    SUBMIND_TESTS_ONLY=${3:-} SUBMIND_OPS_SKIP=${4:-} "$qemu" -cpu "$1" -L $root "$out/test_$2"
}
run max packed
run neoverse-n1 packed                    # has SDOT and no SMMLA
! run cortex-a53 packed | grep -q checked # has neither: the portable table serves it
run max rows
run max linear linear_Q4_K cpu:portable
run cortex-a53 linear linear_IQ4_XS
run max attend_kernels
run max attention '' cpu:portable,cpu:dotprod # whose attention is i8mm's
echo "aarch64: all equal"
