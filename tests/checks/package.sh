#!/usr/bin/env bash
# The deb is built from the build folder, installs into an empty root, and holds a program that runs, its man
# pages and completions. Skipped where CPack or dpkg are missing, and in sanitizer builds.
set -euo pipefail
build=${SUBMIND_BUILD:-}
for tool in cpack dpkg-deb dpkg dpkg-shlibdeps; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
[ -f "$build/CPackConfig.cmake" ] && [ -x "$build/submind" ] || { echo "skipped: nothing is built"; exit 77; }
grep -q '^SUBMIND_SANITIZE:STRING=$' "$build/CMakeCache.txt" || { echo "skipped: a sanitizer build"; exit 77; }
work=$(mktemp -d)
# A user's PATH lacks /sbin, which dpkg asks for.
in_root() {
    dpkg --root="$work/root" --force-not-root --force-depends --force-bad-path --log=/dev/null "$@" >"$work/log" 2>&1 ||
        { cat "$work/log"; exit 1; }
}
trap 'rm -rf "$work"' EXIT
[ -s "$build/manual/submind.fish" ] || { echo "skipped: the man pages are not built"; exit 77; }
(cd "$build" && cpack -G DEB -B "$work/out" >"$work/log" 2>&1) || { cat "$work/log"; exit 1; }
deb=$(ls "$work"/out/*.deb)
dpkg-deb -f "$deb" Depends | grep -q libmicrohttpd || { echo "the deb does not name its libraries"; exit 1; }
mkdir -p "$work/root/var/lib/dpkg/updates" "$work/root/var/lib/dpkg/info"
: >"$work/root/var/lib/dpkg/status"
: >"$work/root/var/lib/dpkg/available"
in_root -i "$deb"
"$work/root/usr/bin/submind" --version | grep -q '^submind [0-9]' || { echo "the installed program does not run"; exit 1; }
while read -r command; do
    page=$work/page-$command
    zcat "$work/root/usr/share/man/man1/submind-$command.1.gz" >"$page" || { echo "no man page of $command"; exit 1; }
    # every flag and every action that --help shows is in the page, written for roff
    while read -r action; do
        grep -qF -- "\fB$action\fR" "$page" || { echo "$page lacks $action"; exit 1; }
    done < <(grep -oE "^ACTION\(\"$command\", \"[a-z]+\"" "${SUBMIND_SOURCE:-.}/src/cmd/actions.def" | cut -d'"' -f4)
    while read -r flag; do
        grep -qF -- "$(sed 's/-/\\-/g' <<<"$flag")" "$page" || { echo "$page lacks $flag"; exit 1; }
    done < <("$work/root/usr/bin/submind" "$command" --help | grep -oE '^  --[a-z0-9-]+' | tr -d ' ')
done < <(grep -oE '^COMMAND\("[a-z-]+"' "${SUBMIND_SOURCE:-.}/src/cmd/commands.def" | cut -d'"' -f2)
if command -v man >/dev/null; then
    LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -E UTF-8 -l "$work/root/usr/share/man/man1/submind-serve.1.gz" 2>"$work/warnings" >/dev/null
    [ ! -s "$work/warnings" ] || { cat "$work/warnings"; exit 1; }
fi
bash -n "$work/root/usr/share/bash-completion/completions/submind"
completed=$(bash -c 'source "$1"; COMP_WORDS=(submind serve --kv-m); COMP_CWORD=2; _submind; echo "${COMPREPLY[@]}"
    COMP_WORDS=(submind service ad); COMP_CWORD=2; _submind; echo "${COMPREPLY[@]}"' _ \
    "$work/root/usr/share/bash-completion/completions/submind")
[ -s "$work/root/usr/share/doc/submind/copyright" ] || { echo "no copyright file"; exit 1; }
[ "$completed" = $'--kv-memory\nadopt' ] || { echo "bash completes --kv-m and ad to \"$completed\""; exit 1; }
in_root -r submind
[ ! -e "$work/root/usr/bin/submind" ] || { echo "removal left the program"; exit 1; }
if command -v rpmbuild >/dev/null; then
    (cd "$build" && cpack -G RPM -B "$work/out" >"$work/log" 2>&1) || { cat "$work/log"; exit 1; }
    rpm -qpl "$work"/out/*.rpm >"$work/files" 2>/dev/null
    for file in /usr/bin/submind /usr/share/man/man1/submind-serve.1.gz /usr/share/bash-completion/completions/submind \
        /usr/share/zsh/site-functions/_submind /usr/share/fish/vendor_completions.d/submind.fish; do
        grep -qxF "$file" "$work/files" || { echo "the rpm lacks $file"; exit 1; }
    done
    rpm -qpi "$work"/out/*.rpm 2>/dev/null | grep -q 'Serves a GGUF model' || { echo "the rpm does not say what it is"; exit 1; }
    rpm -qp --requires "$work"/out/*.rpm 2>/dev/null | grep -q libmicrohttpd || { echo "the rpm does not name its libraries"; exit 1; }
fi
echo "deb$(command -v rpmbuild >/dev/null && echo ' and rpm'): $(dpkg-deb -f "$deb" Package Version Installed-Size | tr '\n' ' ')"
