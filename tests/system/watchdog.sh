#!/bin/bash
# A master that doesn't turn any more is replaced.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'END'
[daemon]
grace = "60s"
[[listen]]
endpoints = ["systemd:echo"]
END
drop_in forkd.service <<'END'
[Service]
WatchdogSec=2
END

systemctl start forkd.service
pid=$(main_pid forkd.service)
# is_left_alone: for more than twice as long as systemd is patient
is_left_alone() {
    local fed=$((SECONDS + 5))
    until [[ $SECONDS -ge $fed ]]; do
        has forkd.service MainPID "$pid" || fail "the master was replaced without need"
        sleep 0.1
    done
    ok "$1"
}
is_left_alone "a master that nothing has happened to is left alone"
hold one ncat 127.0.0.1 7
is_left_alone "a master that turns is left alone"

kill -STOP "$pid"
eventually "a master that was stopped is replaced" has forkd.service NRestarts 1
eventually "the new one serves" has forkd.service ActiveState active
journalctl --sync
log=$(journalctl --no-pager -u forkd.service)
matches "it was the watchdog" 'Watchdog timeout' "$log"
matches "it ended it with SIGABRT" 'code=(killed|dumped), status=6/ABRT' "$log"
eventually "the old one's child doesn't survive it" is_cut one
release one
counts forkd.service 1
echoes tcp 127.0.0.1 7

hold two ncat 127.0.0.1 7
kill -KILL "$(main_pid forkd.service)"
eventually "a master that was killed is replaced" has forkd.service NRestarts 2
eventually "the killed one's child doesn't survive it" is_cut two
release two
eventually "the new one serves" has forkd.service ActiveState active
echoes tcp 127.0.0.1 7
