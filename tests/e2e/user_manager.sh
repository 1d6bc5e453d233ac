#!/bin/bash
# Runs a command beside a systemd of its own: the user's manager, in namespaces where the machine looks as if
# systemd had booted it. Processes keep their numbers: records name them. Needs root and systemd; ends with 77
# where that cannot be had.
#   user_manager.sh COMMAND...
set -u
if [ -z "${SUBMIND_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] && [ -x /usr/lib/systemd/systemd ] && unshare -m -C true 2>/dev/null || exit 77
    SUBMIND_INSIDE=1 exec unshare -m -C "$0" "$@"
fi
mount -t tmpfs tmpfs /run || exit 77
umount -R /sys/fs/cgroup 2>/dev/null
mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 77
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
export XDG_RUNTIME_DIR=/run/user/0
# what units with a sandbox put over what they may not see; user-runtime-dir makes them on a booted machine
for dir in /run/systemd /run/user/0/systemd; do
    mkdir -p $dir/inaccessible/dir && touch $dir/inaccessible/reg && mkfifo $dir/inaccessible/fifo
    mknod $dir/inaccessible/chr c 0 0 && mknod $dir/inaccessible/blk b 0 0 || true
    chmod 000 $dir/inaccessible/*
done
unset SUBMIND_INSIDE DBUS_SESSION_BUS_ADDRESS
/usr/lib/systemd/systemd --user --log-target=console >"${MANAGER_LOG:-/dev/null}" 2>&1 &
manager=$!
command=
trap 'kill $command $manager 2>/dev/null; wait $manager' EXIT
trap 'exit 130' INT TERM
for _ in $(seq 100); do
    systemctl --user list-units >/dev/null 2>&1 && break
    sleep 0.1
done
systemctl --user list-units >/dev/null 2>&1 || exit 77
"$@" &
command=$!
wait $command
