#!/bin/bash
# More clients than TasksMax= has room for: those that are served stay, the others wait, and it is told.
. "$(dirname "$0")/lib.sh"
install_forkd

if [[ $(property run-test.service TasksCurrent) == "[not set]" ]]; then
    echo "left out: TasksMax= has no effect here, because there is no controller for it"
    exit
fi

says() { property forkd.service StatusText | grep -E -- "$1"; }

# metric NAME: of all sockets together
metric() {
    printf 'GET /metrics HTTP/1.0\r\n\r\n' | timeout "$LIMIT" nc -N 127.0.0.1 9707 |
        awk -v name="$1{" 'index($0, name) == 1 { sum += $NF } END { print sum + 0 }'
}

cat >/etc/systemd/system/forkd-metrics.socket <<'END'
[Socket]
ListenStream=127.0.0.1:9707
FileDescriptorName=metrics
Service=forkd.service
END
# systemd is patient for three seconds, in which a busy machine has a turn for the daemon, and each overload lasts longer
drop_in forkd.service <<'END'
[Service]
WatchdogSec=3
END

# is_left_alone: for longer than the watchdog is patient
is_left_alone() {
    local pid until=$((SECONDS + 5))
    pid=$(main_pid forkd.service)
    until [[ $SECONDS -ge $until ]]; do
        has forkd.service MainPID "$pid" || fail "the watchdog ended it"
        sleep 0.1
    done
    has forkd.service NRestarts 0 || fail "it was restarted"
    ok "the watchdog leaves it alone"
}

tasks_max() { systemctl set-property --runtime forkd.service "TasksMax=$1"; }

# overloads SETTINGS CLIENTS TASKS SERVED STATUS LINE OVER: so many clients where so many tasks have room for fewer, and how
# that is told
overloads() {
    local settings=$1 clients=$2 tasks=$3 served=$4 status=$5 line=$6 over=$7
    echo "# $settings"
    configure forkd <<END
[daemon]
metrics = "systemd:metrics"
grace = "1s"
[[listen]]
endpoints = ["systemd:echo"]
$settings
END
    tasks_max "$tasks"
    systemctl start forkd.socket forkd-metrics.socket forkd.service
    start_crowd "$clients"
    eventually "$served of $clients are served" crowd_is "served=$served waiting=$((clients - served)) cut=0"
    is_left_alone
    eventually "the status says: $status" says "^serving: .*; $status"
    [[ $(logs forkd.service "$line" | wc -l) -le 5 ]] || fail "the log is full of: $line"
    matches "the line names TasksMax=" 'TasksMax=' "$(logs forkd.service "$line")"
    [[ $(metric forkd_failed_starts_total) -gt 0 ]] || fail "forkd_failed_starts_total is 0"
    held=$(metric forkd_connections_held)
    tasks_max infinity
    eventually "all are served when there is room" crowd_is "served=$clients waiting=0 cut=0"
    eventually "the status takes it back" says '^serving: [0-9]+ children, [0-9]+ connections$'
    eventually "and so does the log: $over" logs forkd.service "$over"
    is "forkd_connections_held" 0 "$(metric forkd_connections_held)"
    stop_crowd
    systemctl stop forkd.socket forkd-metrics.socket forkd.service
}

# beside the children there are the master, the process for metrics, and where there are workers one for UDP
overloads 'model = "fork"
max-children = 5000' 4000 2002 2000 'cannot fork: .*, holding 1$' 'cannot fork; ' 'fork works again'
is "forkd_connections_held was" 1 "$held"
overloads 'model = "prefork"
workers = "1..100"
min-spare = 1' 40 20 17 'cannot fork all workers: ' 'cannot fork a worker; ' 'all workers are running again'
overloads 'model = "thread"' 40 20 16 'cannot start threads, holding 1$' 'cannot start a thread; ' 'threads can be started again'
is "forkd_connections_held was" 1 "$held"

# A start with room for some of the workers serves with those, and says so.
configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
model = "prefork"
workers = 8
END
tasks_max 9
exits "systemctl start with TasksMax=9 for 17 processes" 0 timeout "$LIMIT" systemctl start forkd.service
eventually "the status says that workers are missing" says '^serving: .*; cannot fork all workers: '
counts forkd.service 9
echoes tcp 127.0.0.1 7
has forkd.service NRestarts 0 || fail "it was restarted"
tasks_max infinity
counts forkd.service 17
eventually "the status takes it back" says '^serving: [0-9]+ children, [0-9]+ connections$'
echoes udp 127.0.0.1 7
