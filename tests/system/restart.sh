#!/bin/bash
# Restarts of the service while its socket unit goes on listening: no client notices.
. "$(dirname "$0")/lib.sh"
install_forkd

# so many restarts would be too many
drop_in forkd.service <<'END'
[Unit]
StartLimitIntervalSec=0
END

for model in fork prefork; do
    configure forkd <<END
[daemon]
grace = "2s"
[[listen]]
endpoints = ["systemd:echo"]
model = "$model"
END
    systemctl restart forkd.service
    start_load tcp://127.0.0.1:7 'tcp://[::1]:7' udp://127.0.0.1:7
    for ((n = 0; n < 20; n++)); do
        pid=$(main_pid forkd.service)
        systemctl restart forkd.service || fail "restart number $n"
        ! has forkd.service MainPID "$pid" || fail "restart number $n left process $pid"
    done
    stop_load
    ok "20 restarts, model $model"

    # what is lost: connections in flight when the grace time is over
    hold one ncat 127.0.0.1 7
    start_load tcp://127.0.0.1:7
    systemctl restart forkd.service
    eventually "a connection that doesn't end is cut" is_cut one
    release one
    stop_load
done
