#!/usr/bin/env bash
# Boots a throw-away systemd over a copy-on-write view of /, runs one command in it as root, and exits
# with the status of that command; 125: it could not be booted.
#
#   boot.sh [SOURCE:TARGET]... -- COMMAND [ARGUMENT...]
#
# Each SOURCE, a file or directory of this system, is copied to TARGET first. The command and all it
# starts ends after BOOT_LIMIT seconds (120).
#
# Nothing is left behind, whatever ends this script: what is mounted lives in a mount namespace, what
# runs in a pid namespace, both of this run; control groups are removed by a guard, which sees the end
# of this script by the end of a pipe, so that even SIGKILL can't keep it from its work.
set -euo pipefail

die() { echo "cannot boot a systemd: $*" >&2; exit 125; }

# Prints the directory of our control group in each hierarchy that is mounted.
hierarchies() {
    local mount type options id controllers path
    while read -r _ mount type options _; do
        while IFS=: read -r id controllers path; do
            controllers=${controllers#name=}
            if [[ $type == cgroup2 && $id == 0 || $type == cgroup && -n $controllers &&
                ,${options/name=/}, == *,${controllers%%,*},* ]]; then
                printf '%s %s\n' "$type" "$mount${path%/}"
            fi
        done </proc/self/cgroup
    done < <(grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/self/mounts)
}

# A control group for this run in each hierarchy, or parallel runs would share nspawn's "payload".
make_groups() {
    local type parent file
    while read -r type parent; do
        mkdir "$parent/$name" 2>/dev/null || continue
        groups+=("$parent/$name")
        for file in cpuset.cpus cpuset.mems; do # version 1: empty at first, and useless as long
            if [[ $type == cgroup && -e $parent/$file ]]; then
                cat "$parent/$file" >"$parent/$name/$file"
            fi
        done
    done < <(hierarchies)
    [[ ${#groups[@]} -gt 0 ]] || die "no control group can be made in $(hierarchies | tr '\n' ' ')"
}

# Waits for the end of its input, then removes the control groups as soon as they are empty.
guard() {
    local group try
    trap '' INT TERM HUP
    cat >/dev/null
    for group in "${groups[@]}"; do
        for ((try = 0; try < 100; try++)); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $group ]] || break
            sleep 0.1
        done
    done
}

outside() {
    [[ $(id -u) -eq 0 ]] || die "not root"
    local tool status=0
    for tool in systemd-nspawn unshare setpriv; do
        command -v "$tool" >/dev/null || die "$tool is not installed (Debian: systemd-container)"
    done
    unshare --mount --pid --fork true || die "namespaces can't be made"
    name=forkd-test-$$
    groups=()
    make_groups
    exec {life}> >(guard)
    local guard=$!
    (
        exec {life}>&-
        for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
        exec setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child \
            --mount-proc "$BASH" "$(readlink -f "$0")" --inside "$name" "$@" </dev/null
    ) &
    wait $! || status=$?
    exec {life}>&-
    wait "$guard"
    exit "$status"
}

inside() {
    name=$1
    shift
    # over /run: it's there everywhere, and what nspawn leaves in it goes with it
    mount -t tmpfs -o mode=755 tmpfs /run || die "mount(8) is not allowed"
    mkdir /run/upper /run/work /run/root
    root=/run/root
    mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay "$root" ||
        die "no overlay of / can be mounted"
    while [[ $1 != -- ]]; do
        mkdir -p "$root$(dirname "${1#*:}")"
        cp -aT --no-preserve=ownership "${1%%:*}" "$root${1#*:}"
        shift
    done
    shift
    prepare "$@"
    boot
}

# Makes the root a system of its own, which starts nothing but what is needed for the command.
prepare() {
    local etc=$root/etc/systemd/system
    rm -rf "$etc"/*.wants "$root/etc/fstab" "$root/var/log/journal" "$root/usr/sbin/policy-rc.d"
    systemd-id128 new >"$root/etc/machine-id" # an empty one means a first boot, which enables everything
    echo "$name" >"$root/etc/hostname"
    mkdir -p "$root/run-test"
    printf '#!/bin/bash\nexec timeout -k 5 %s %s\n' "${BOOT_LIMIT:-120}" "${*@Q}" >"$root/run-test/command"
    # nspawn mounts the controllers of version 1 read-only; the control groups in them are ours
    cat >"$root/run-test/init" <<'END'
#!/bin/sh
for controller in pids memory cpu cpuacct cpuset blkio devices freezer; do
    mount -o remount,rw,bind /sys/fs/cgroup/$controller 2>/dev/null
done
exec /lib/systemd/systemd --system "$@"
END
    cat >"$etc/run-test.service" <<'END'
[Unit]
Wants=basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
ExecStart=/run-test/command
WorkingDirectory=/root
StandardOutput=append:/run-test/output
StandardError=inherit
END
    chmod 755 "$root/run-test/command" "$root/run-test/init"
}

boot() {
    local status=0
    # version 2 alone, unless version 1 is there too
    if ! grep -q '^[^ ]* [^ ]* cgroup ' /proc/self/mounts; then
        export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    fi
    timeout -s KILL $((${BOOT_LIMIT:-120} + 30)) \
        systemd-nspawn --quiet --register=no --keep-unit --private-network --link-journal=no --console=pipe \
        --capability=CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK,CAP_SYSLOG \
        --system-call-filter='bpf keyctl add_key request_key @memlock' \
        --machine="$name" --directory="$root" /run-test/init systemd.unit=run-test.service \
        </dev/null >/run/console 2>&1 || status=$?
    if [[ ! -e $root/run-test/output ]]; then
        cat /run/console >&2
        die "nspawn ends with $status before the command runs"
    fi
    cat "$root/run-test/output"
    [[ $status -ne 124 ]] || echo "it took longer than ${BOOT_LIMIT:-120} s"
    exit "$status"
}

if [[ ${1-} == --inside ]]; then
    shift
    inside "$@"
else
    outside "$@"
fi
