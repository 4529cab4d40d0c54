#!/bin/bash
# What the service tells systemd: that it is ready, what it does, that it stops, how long that may take.
. "$(dirname "$0")/lib.sh"
install_forkd

says() { property forkd.service StatusText | grep -E -- "$1"; }

cat >/usr/lib/systemd/system/forkd-own.service <<'END'
[Service]
Type=notify
ExecStart=/usr/bin/forkd serve --config /etc/forkd/own.toml
END
configure own <<'END'
[[listen]]
endpoints = ["tcp://127.0.0.1:7001", "udp://127.0.0.1:7001"]
model = "prefork"
workers = 3
END
exits "systemctl start" 0 systemctl start forkd-own.service
# at once: the sockets were bound and the workers were there when systemctl returned
is "processes at the time of the return" 7 "$(processes forkd-own.service)"
echoes tcp 127.0.0.1 7001
exits "systemctl stop" 0 systemctl stop forkd-own.service
is "it ended with" "success 0" "$(property forkd-own Result) $(property forkd-own ExecMainStatus)"

# another program has the port
nc -lk 127.0.0.1 7001 &
eventually "another program has the port" nc -z 127.0.0.1 7001
exits "systemctl start fails when the port is taken" 1 systemctl start forkd-own.service
is "exit code" "exit-code 69" "$(property forkd-own Result) $(property forkd-own ExecMainStatus)"
matches "the journal says why" 'cannot bind tcp://127\.0\.0\.1:7001 ' "$(journal forkd-own.service)"
kill $!
wait $! || true
configure own <<<'what = "is this"'
exits "systemctl start fails with a bad file" 1 systemctl start forkd-own.service
is "exit code" "exit-code 78" "$(property forkd-own Result) $(property forkd-own ExecMainStatus)"
matches "the journal says why" 'own\.toml:1:1: unknown field' "$(journal forkd-own.service)"

configure forkd <<'END'
[daemon]
grace = "6s"
[[listen]]
endpoints = ["systemd:echo"]
END
exits "systemctl start" 0 systemctl start forkd.service
eventually "the status has no children" says '\b0 children\b'
hold one nc 127.0.0.1 7
hold two ncat ::1 7
hold three socat 127.0.0.1 7
eventually "the status has children and connections" says '\b3 children\b.*\b3 connections\b'
matches "systemctl status shows it" 'Status: ".*3 children.*"' "$(systemctl status forkd.service)"
release one
eventually "the status follows" says '\b2 children\b.*\b3 connections\b'
release two three

# A stop lets connections finish.
hold one nc 127.0.0.1 7
systemctl stop --no-block forkd.service
eventually "it is stopping" has forkd.service SubState stop-sigterm
say one "still there?"
release one
eventually "it has stopped when the last client has gone" has forkd.service ActiveState inactive
is "it ended with" "success 0" "$(property forkd Result) $(property forkd ExecMainStatus)"

# A stop that is not systemd's idea is announced.
systemctl start forkd.service
hold one nc 127.0.0.1 7
kill -TERM "$(main_pid forkd.service)"
eventually "systemd knows that it is stopping" has forkd.service ActiveState deactivating
say one "still there?"
release one
eventually "it has stopped" has forkd.service ActiveState inactive

# Grace may be longer than systemd would wait by itself.
drop_in forkd.service <<'END'
[Service]
TimeoutStopSec=2
END
systemctl start forkd.service
hold one ncat 127.0.0.1 7
start=$SECONDS
systemctl stop forkd.service &
stop=$!
until [[ $((SECONDS - start)) -ge 4 ]]; do
    say one "still there at $SECONDS s?"
    sleep 0.5
done
eventually "the connection ends with the grace" is_cut one
wait "$stop"
is "it ended with" "success 0" "$(property forkd Result) $(property forkd ExecMainStatus)"
matches "the grace was over, and that was that" 'stopped connections=1 cut=1' "$(journal forkd.service)"
