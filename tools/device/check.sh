#!/usr/bin/env bash
# The GPU's kernels under compute-sanitizer: memory errors and races over all of tests/ops.
#
#   tools/device/check.sh build/tests/test_gpu        (and build/tests/test_gpu_fp8)
#
# Two things are no errors: that a kernel is looked for in every module until one has it, and races reported
# inside the vendor's matrix library, which is left out of the search for races.
set -euo pipefail
test=$1
compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 "$test"
compute-sanitizer --tool racecheck --error-exitcode 1 "$test" cuda:0:noblas
