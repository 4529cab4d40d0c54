#!/bin/bash
# A new configuration without a break.
. "$(dirname "$0")/lib.sh"
install_forkd

# The shipped service, with its sockets from systemd.
shipped() { # shipped MODEL [OPTION]
    configure forkd <<END
[daemon]
grace = "60s"
[[listen]]
endpoints = ["systemd:echo"]
model = "$1"
${2-}
END
}
models() { forkd status --control "$CONTROL" --json | jq -r '[.listeners[].model] | unique | join(" ")'; }

shipped fork
exits "systemctl start" 0 systemctl start forkd.service
pid=$(main_pid forkd.service)
hold one nc 127.0.0.1 7
start_load tcp://127.0.0.1:7 'tcp://[::1]:7' udp://127.0.0.1:7
for ((n = 0; n < 50; n += 2)); do
    shipped prefork
    systemctl reload forkd.service || fail "systemctl reload, number $n"
    [[ $(models) == prefork ]] || fail "when systemctl reload returns, the models are: $(models)"
    shipped fork
    forkd reload --control "$CONTROL" || fail "forkd reload, number $n"
    [[ $(models) == fork ]] || fail "when forkd reload returns, the models are: $(models)"
done
stop_load
ok "50 reloads: the new configuration is in force when the command returns"
is "main process" "$pid" "$(main_pid forkd.service)"
say one "still there?"
release one
counts forkd.service 1

# The workers are new ones, also if nothing has changed.
shipped prefork 'workers = 8'
systemctl reload forkd.service
workers() { pgrep -P "$pid" | sort; }
before=$(workers)
systemctl reload forkd.service
renewed() { [[ -z $(comm -12 <(echo "$before") <(workers)) ]]; }
eventually "workers are renewed" renewed
counts forkd.service 17

# A file that is refused changes nothing.
refused() { # refused REASON
    exits "systemctl reload fails" 1 systemctl reload forkd.service
    is "lines of the journal that say why" 1 "$(journal forkd.service | grep -cE "^error: reload failed, the old configuration stays in force: .*$1")"
    exits "forkd reload fails" 78 forkd reload
    matches "it says why" "$1" "$output"
    is "main process" "$pid" "$(main_pid forkd.service)"
    is "the service is" "active prefork" "$(property forkd.service ActiveState) $(models)"
    echoes tcp 127.0.0.1 7
}
hold one nc 127.0.0.1 7
configure forkd <<<'what = "is this"'
refused 'forkd\.toml:1:1: unknown field'
shipped "fibres"
refused 'unknown variant .fibres.'
say one "still there?"
shipped fork
exits "a good file after bad ones" 0 systemctl reload forkd.service
is "models" fork "$(models)"
release one
systemctl stop forkd.service 2>/dev/null

# An instance that binds for itself: what has not changed stays open.
install -D -m 644 /test/systemd/examples/bind.conf /etc/systemd/system/forkd@own.service.d/bind.conf
systemctl daemon-reload
own() { # own PORT
    configure own <<END
[[listen]]
endpoints = ["tcp://127.0.0.1:7000", "udp://127.0.0.1:7000"]
model = "prefork"
workers = 2
[[listen]]
endpoints = ["tcp://127.0.0.1:$1"]
END
}
inodes() { ss -H -l -t -u -n -e "sport = :7000" | grep -o 'ino:[0-9]*' | sort; }

own 7001
exits "systemctl start" 0 systemctl start forkd@own.service
before=$(inodes)
hold one socat 127.0.0.1 7001
start_load tcp://127.0.0.1:7000 udp://127.0.0.1:7000
for ((n = 0; n < 10; n++)); do
    own 7002
    systemctl reload forkd@own.service || fail "reload number $n"
    nc -z 127.0.0.1 7002 || fail "after reload number $n no listener on the new port"
    ! nc -z 127.0.0.1 7001 || fail "after reload number $n the old port is open"
    own 7001
    systemctl reload forkd@own.service || fail "reload number $n"
    nc -z 127.0.0.1 7001 || fail "after reload number $n no listener on the new port"
done
stop_load
is "sockets that did not change are the same" "$before" "$(inodes)"
say one "still there?"

nc -lk 127.0.0.1 7003 &
eventually "another program has a port" nc -z 127.0.0.1 7003
own 7003
exits "a reload that would bind its port fails" 1 systemctl reload forkd@own.service
matches "the journal says why" 'cannot bind tcp://127\.0\.0\.1:7003 ' "$(journal forkd@own.service)"
echoes tcp 127.0.0.1 7000
echoes tcp 127.0.0.1 7001
release one
