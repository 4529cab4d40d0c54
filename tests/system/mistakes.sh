#!/bin/bash
# A configuration that can't be served, and the mended one. The sockets stay open, a client that connects meanwhile is
# served then, and no `systemctl reset-failed` is needed.
. "$(dirname "$0")/lib.sh"
install_forkd

right() { configure "$1" <<<$'[[listen]]\nendpoints = ["systemd:echo"]'; }

pauses() { # pauses UNIT N: that many starts of it have been made for clients that wait
    [[ $(logs "$1" 'clients wait at the sockets' | wc -l) -ge $2 ]]
}

# mends UNIT NAME PORT EXIT_STATUS REASON: by the right configuration what fails with the one that is there
mends() {
    local unit=$1 name=$2 port=$3 status=$4 reason=$5 client answer
    exits "$unit: a restart fails" 1 systemctl restart "$unit.service"
    matches "the journal says why" "$reason" "$(journal "$unit.service")"
    is "it is not tried again" "failed $status" "$(property "$unit.service" SubState) $(property "$unit.service" ExecMainStatus)"

    exec {client}<>"/dev/tcp/127.0.0.1/$port"
    echo "hello from a client that waits" >&"$client"
    eventually "a client has it tried again, and again after a pause" pauses "$unit.service" 2
    is "the socket unit is" active "$(property "$unit.socket" ActiveState)"

    right "$name"
    exits "$unit: a restart with the mended configuration" 0 systemctl restart "$unit.service"
    read -r -t "$LIMIT" -u "$client" answer || fail "no answer to the client that waits"
    is "the client that waits has its echo" "hello from a client that waits" "$answer"
    exec {client}>&-
    echoes tcp ::1 "$port"
}

right forkd
systemctl start forkd.service
configure forkd <<<'what = "is this"'
mends forkd forkd 7 78 'forkd\.toml:1:1: unknown field'

drop_in forkd@lab.socket <<<$'[Socket]\nListenStream=7107'
right lab
systemctl start forkd@lab.socket forkd@lab.service
configure lab <<<$'[[listen]]\nendpoints = ["systemd:ech"]'
mends forkd@lab lab 7107 69 'cannot serve systemd:ech'

# forkd check finds out beforehand, under the conditions of the unit.
configure forkd <<<$'[[listen]]\nendpoints = ["systemd:echo"]\nservice = "exec"\nexec = ["/bin/cat"]'
main=$(main_pid forkd.service)
exits "by itself it finds nothing wrong with a program" 0 forkd check --config /etc/forkd/forkd.toml
exits "in the unit it can't be run" 77 forkd check --unit forkd
matches "which it says, with the setting" \
    "^forkd: error: forkd.service can't serve: cannot run /bin/cat: .*NoExecPaths=" "$output"
configure lab </etc/forkd/forkd.toml
drop_in forkd@lab.service <<<$'[Service]\nExecPaths=/usr/bin/cat /usr/lib'
exits "a drop-in counts" 0 forkd check --unit forkd@lab
matches "it prints the configuration" 'control = "/run/forkd-lab/control.sock"' "$output"
right lab
drop_in forkd@lab.service <<<$'[Service]\nStateDirectory=forkd-%i\nReadWritePaths=-%S/forkd\nX-Note=mine'
exits "a restart with a directory of the service's own" 0 systemctl restart forkd@lab.service
mkdir /var/lib/private/forkd-lab/www
configure lab <<<$'[[listen]]\nendpoints = ["systemd:echo"]\nservice = "http"\nroot = "/var/lib/forkd-lab/www"'
exits "which the check sees" 0 forkd check --unit forkd@lab
exits "a restart" 0 systemctl restart forkd@lab.service
configure lab <<<$'[[listen]]\nendpoints = ["tcp://[::]:7108"]'
exits "an address" 71 forkd check --unit forkd@lab
matches "which it says, with the setting" 'cannot bind tcp://\[::\]:.*RestrictAddressFamilies=' "$output"
configure lab <<<$'[[listen]]\nendpoints = ["systemd:ech"]'
exits "a socket that nothing hands over" 69 forkd check --unit forkd@lab
matches "which it says, with those there are" 'systemd:ech: the sockets that it gets are named echo$' "$output"

drop_in forkd@lab.service <<<$'[Service]\nExecPaths=/nowhere'
exits "a path that isn't there" 226 forkd check --unit forkd@lab
is "the service is the same" "$main active" "$(main_pid forkd.service) $(property forkd.service ActiveState)"

# What it says is what a restart does. Each case: an exit code, what the error says, and the configuration.
would_fail() { # would_fail EXIT_STATUS REASON DAEMON LISTEN
    configure forkd <<<$'[daemon]\n'"$3"$'\n[[listen]]\nendpoints = ["systemd:echo"]\n'"$4"
    exits "forkd check --unit: $3 $4" "$1" forkd check --unit forkd.service
    matches "says why" "$2" "$output"
    systemctl reset-failed
    exits "a restart" 1 systemctl restart forkd.service
    is "fails with" "$1" "$(property forkd.service ExecMainStatus)"
    matches "for the same reason" "$2" "$(logs forkd.service 'error: ' | tail -n 1)"
}
would_fail 78 'which needs a connection.*ListenDatagram=' '' $'service = "http"'
would_fail 71 'cannot bind tcp://127.0.0.1:9707.*RestrictAddressFamilies=' 'metrics = "tcp://127.0.0.1:9707"' ''
would_fail 73 'cannot create the pidfile /run/forkd.pid: .*ReadOnlyPaths=' 'pidfile = "/run/forkd.pid"' ''
would_fail 77 'cannot .*DynamicUser=' 'user = "nobody"' ''
would_fail 78 'cannot go into the background' 'daemon = true' ''
would_fail 73 'cannot bind unix:///srv/forkd.sock: .*ProtectSystem=' '' $'[[listen]]\nendpoints = ["unix:///srv/forkd.sock"]'

would_serve() { # would_serve <CONFIGURATION
    configure forkd
    exits "forkd check --unit: $(paste -sd " " /etc/forkd/forkd.toml)" 0 forkd check --unit forkd.service
    checked=$output
    systemctl reset-failed
    exits "a restart" 0 systemctl restart forkd.service
    echoes tcp ::1 7
}
would_serve <<<$'[daemon]\nmetrics = "systemd:metrics"\n[[listen]]\nendpoints = ["systemd:echo"]'
matches "without metrics" 'warning: forkd.service would serve without metrics: systemd:metrics: ' "$checked"
would_serve <<<$'[daemon]\npidfile = "/run/forkd/pid"\n[[listen]]\nendpoints = ["systemd:echo", "unix:///run/forkd/x.sock"]'
would_serve <<<$'[daemon]\nlog-level = "warn"' # what is handed over is served where nothing is named
right forkd

# Where systemd can't even start the program, the tries have no pause, and its limit closes the sockets.
drop_in forkd.service <<<$'[Service]\nExecPaths=/nowhere'
exits "a restart fails with a path that isn't there" 1 systemctl restart forkd.service
eventually "the socket unit fails, too" has forkd.socket Result service-start-limit-hit
rm /etc/systemd/system/forkd.service.d/test.conf
systemctl daemon-reload
systemctl reset-failed 'forkd*'
exits "what SYSTEMD.md says recovers both" 0 systemctl restart forkd.service
is "the socket unit is" active "$(property forkd.socket ActiveState)"
echoes tcp ::1 7
