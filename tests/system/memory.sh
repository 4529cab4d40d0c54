#!/bin/bash
# MemoryMax= is met: clients wait, none that is served is cut; and if a process is killed, it is never the master.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'END'
[daemon]
grace = "1s"
[[listen]]
endpoints = ["systemd:echo"]
max-children = 5000
END

says() { property forkd.service StatusText | grep -E -- "$1"; }

systemctl start forkd.service
group=$(property forkd.service ControlGroup)
for control in /sys/fs/cgroup/memory$group/memory.oom_control /sys/fs/cgroup$group/memory.events; do
    [[ ! -e $control ]] || break
done
if [[ ! -e $control ]]; then
    echo "left out: MemoryMax= has no effect here, because there is no controller for it"
    exit
fi
systemctl stop forkd.socket forkd.service
kills() { awk '/^oom_kill / { print $2 }' "$control"; }
are_told() { [[ $(($(deaths) + $1)) -eq $(kills) ]]; }
deaths() { forkd status --json | jq '[.listeners[].deaths.oom // 0] | add'; }

end_crowd() {
    rm /run/crowding
    wait "$crowd" || true # a child may be killed for what the others take
    ok "of those who stay: $(tail -n 1 /run/crowd.out)"
}

# so many clients, and less memory than their children take
for crowd in 300:12M 1000:32M; do
    echo "# ${crowd%:*} clients, MemoryMax=${crowd#*:}"
    drop_in forkd.service <<END
[Service]
MemoryMax=${crowd#*:}
END
    systemctl start forkd.service
    pid=$(main_pid forkd.service)
    start_crowd "${crowd%:*}"
    eventually "the status says that others wait" says '^serving: .*; cannot fork: Cannot allocate memory .*, holding 1$'
    matches "the log names MemoryMax=" 'cannot fork; .*MemoryMax=' "$(logs forkd.service 'cannot fork')"
    end_crowd
    eventually "all have gone" says '^serving: 0 children, [0-9]+ connections$'
    is "the master is" "$pid" "$(main_pid forkd.service)"
    eventually "those who were cut are said to be due to that: $(kills)" are_told 0
    systemctl stop forkd.socket forkd.service
done

# another process of the unit takes all memory
systemctl start forkd.service
pid=$(main_pid forkd.service)
start_crowd 100
eventually "all are served" crowd_is "served=100 waiting=0 cut=0"
(
    echo "$BASHPID" >"${control%/*}/cgroup.procs"
    exec tail /dev/zero
) || true
eventually "children were killed" crowd_is "served=0 waiting=0 cut=100"
end_crowd
is "the master is" "$pid" "$(main_pid forkd.service)"
is "restarts" 0 "$(property forkd.service NRestarts)"
# one more is the process that took it
eventually "all deaths are said to be due to that" are_told 1
matches "the log has the cause" 'child was killed: out of memory .* cause=oom ' "$(logs forkd.service 'cause=oom')"
lines=$(logs forkd.service 'cause=oom' | wc -l)
[[ $lines -lt 20 ]] || fail "$lines lines about $(deaths) deaths"
ok "the lines are limited"
echoes tcp 127.0.0.1 7
