#!/bin/bash
# The service ends when no client is there (--exit-idle), and its sockets start it again.
. "$(dirname "$0")/lib.sh"
install_forkd
configure forkd <<'TOML'
[daemon]
exit-idle = "200ms"
[[listen]]
endpoints = ["systemd:echo"]
model = "prefork"
workers = 2
TOML
# more starts than systemd allows by default
drop_in forkd.service <<'UNIT'
[Unit]
StartLimitIntervalSec=0
UNIT

exits "systemctl start forkd.socket" 0 systemctl start forkd.socket
for round in 1 2 3; do
    for protocol in tcp udp; do
        echoes "$protocol" 127.0.0.1 7
        eventually "the service ends, round $round by $protocol" has forkd.service ActiveState inactive
        is "its result" "success 0" "$(property forkd.service Result) $(property forkd.service ExecMainStatus)"
        is "its sockets" "active" "$(property forkd.socket ActiveState)"
    done
done
matches "the journal says why" 'no client has been here for 200ms' "$(journal forkd.service)"

# one that stays keeps it
hold one nc 127.0.0.1 7
pid=$(main_pid forkd.service)
sleep 1
say one "still here"
is "the process" "$pid" "$(main_pid forkd.service)"
release one
eventually "it ends after the last client" has forkd.service ActiveState inactive

# clients without a break, and then with breaks around its end: none is lost
start_load tcp://127.0.0.1:7 udp://127.0.0.1:7
sleep 1
stop_load
for pause in .15 .2 .21 .22 .25 .3 .2 .21 .22; do
    sleep "$pause"
    is "an echo after $pause s" hello "$(timeout "$LIMIT" nc -N 127.0.0.1 7 <<<hello)"
done
