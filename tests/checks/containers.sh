#!/usr/bin/env bash
# The Containerfiles without a registry: what CMake looks for is installed, what toolbx wants is there, what is
# copied exists, and the commands in them, in the quadlet unit and in CONTAINERS.md have flags that exist.
set -euo pipefail
cd "${SUBMIND_SOURCE:-.}/packaging"
bad=0
fail() { echo "$1"; bad=1; }

modules="msgpack $(sed -nE 's/^pkg_check_modules\([A-Z0-9]+ REQUIRED IMPORTED_TARGET ([^ )]+)\).*/\1/p' ../CMakeLists.txt)"
[ "$(wc -w <<<"$modules")" -ge 10 ] || fail "CMakeLists.txt: its libraries were not found"
for file in Containerfile.rocm Containerfile.vulkan; do
    for module in $modules; do
        grep -qF "'pkgconfig($module)'" "$file" || fail "$file: pkgconfig($module) is not installed"
    done
done
for module in $modules; do # Debian's names, as scripts/deps has them
    case $module in
    libpcre2-8) name=libpcre2-dev ;; libcurl) name=libcurl4-openssl-dev ;; yaml-0.1) name=libyaml-dev ;;
    libzmq) name=libzmq3-dev ;; *) name=lib${module#lib}-dev ;;
    esac
    grep -qw -- "$name" Containerfile.cuda || fail "Containerfile.cuda: $name is not installed"
    grep -qw -- "$name" ../scripts/deps || fail "scripts/deps: $name is not there"
done

for file in Containerfile.*; do
    # toolbx: https://containertoolbx.org/distros - the label, sudo, user tools, no entry point of its own
    grep -q 'com.github.containers.toolbox="true"' "$file" || fail "$file: toolbx's label is missing"
    for tool in sudo passwd bubblewrap; do grep -qw $tool "$file" || fail "$file: no $tool"; done
    ! grep -q '^ENTRYPOINT' "$file" || fail "$file: an entry point keeps toolbx from starting its own"
    grep -q '^CMD \["submind", "serve"' "$file" || fail "$file: it does not serve"
    [ "$(grep '^COPY' "$file" | grep -v -- --from=build)" = 'COPY . /src' ] || fail "$file: copies what is not known to exist"
done

if [ -n "${SUBMIND:-}" ]; then
    help=$($SUBMIND serve --help; $SUBMIND service --help)
    for flag in $(grep -hoE '(submind serve|"submind", "serve"|submind service)[^`]*' Containerfile.* quadlet/*.container CONTAINERS.md |
        grep -oE -- '--[a-z-]+' | sort -u); do
        grep -q -- "$flag " <<<"$help" || fail "submind has no flag $flag"
    done
fi
exit $bad
