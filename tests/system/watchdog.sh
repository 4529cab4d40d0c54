#!/bin/bash
# A master that doesn't turn any more is replaced.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'END'
[[listen]]
endpoints = ["systemd:echo"]
END
drop_in forkd.service <<'END'
[Service]
WatchdogSec=1
END

is_another() { has forkd.service ActiveState active && [[ $(main_pid forkd.service) != "$1" ]]; }

systemctl start forkd.service
pid=$(main_pid forkd.service)
hold one ncat 127.0.0.1 7
fed=$((SECONDS + 4))
until [[ $SECONDS -ge $fed ]]; do # four times as long as systemd is patient
    has forkd.service MainPID "$pid" || fail "the master was replaced without need"
    sleep 0.1
done
ok "a master that turns is left alone"

kill -STOP "$pid"
eventually "a master that was stopped is replaced" is_another "$pid"
is "restarts" 1 "$(property forkd.service NRestarts)"
log=$(journalctl --no-pager -u forkd.service)
matches "it was the watchdog" 'Watchdog timeout' "$log"
matches "it ended it with SIGABRT" 'code=(killed|dumped), status=6/ABRT' "$log"
eventually "the old one's child doesn't survive it" is_cut one
release one
counts forkd.service 1
echoes tcp 127.0.0.1 7
