#!/bin/bash
# The log in the journal: priorities, the program's name, which unit it belongs to.
. "$(dirname "$0")/lib.sh"
install_forkd

logged() { journal forkd.service | grep -q -- "$1"; }

# field NAME TEXT: a field of the last message of the service that has this text
field() {
    journal forkd.service --output json |
        jq -r --arg text "$2" "select(.MESSAGE | contains(\$text)) | .$1" | tail -n 1
}

for log in stderr syslog; do
    configure forkd <<END
[daemon]
log = "$log"
log-level = "debug"
grace = "1s"
[[listen]]
endpoints = ["systemd:echo"]
END
    exits "systemctl restart, --log $log" 0 systemctl restart forkd.service
    echoes tcp 127.0.0.1 7
    for name in one two three; do
        hold "$name" nc 127.0.0.1 7
    done
    main=$(main_pid forkd.service)
    mapfile -t children < <(pgrep -P "$main" | sort -n)
    kill -KILL "${children[0]}"
    kill -SEGV "${children[1]}"
    eventually "a kill is reported" logged "child was killed pid=${children[0]}"
    eventually "a crash is reported" logged "child crashed pid=${children[1]}"
    release one two three
    eventually "a child says how its connection ended" logged "connection closed"

    is "priority of the life of the daemon (info)" 6 "$(field PRIORITY 'ready pid=')"
    is "priority of a connection (debug)" 7 "$(field PRIORITY 'connection accepted')"
    is "priority of a kill (warning)" 4 "$(field PRIORITY 'child was killed')"
    is "priority of a crash (err)" 3 "$(field PRIORITY 'child crashed')"
    is "the master's lines have its pid" "$main" "$(field _PID 'connection accepted')"
    # all these were chosen by _SYSTEMD_UNIT=forkd.service
    child=$(field _PID 'connection closed')
    [[ -n $child && $child != "$main" ]] || fail "a child's line has the pid '$child', the master's is $main"
    ok "a child's lines have its pid, and belong to the unit"
    is "identifiers" forkd "$(journal forkd.service --output json | jq -r .SYSLOG_IDENTIFIER | sort -u)"
    is "lines with the marks of another place" 0 "$(journal forkd.service | grep -cE '^(<|forkd)' || true)"
    systemctl stop forkd.service 2>/dev/null
done
is "errors, by journalctl -p err" 2 "$(journal forkd.service --priority err | wc -l)"

# JSON has priorities, too, and is what it was.
configure forkd <<'END'
[daemon]
log-format = "json"
[[listen]]
endpoints = ["systemd:echo"]
END
exits "systemctl restart, --log-format json" 0 systemctl restart forkd.service
hold one nc 127.0.0.1 7
kill -SEGV "$(pgrep -P "$(main_pid forkd.service)")"
eventually "a crash is reported" logged '"msg":"child crashed"'
release one
is "priority of a crash in JSON (err)" 3 "$(field PRIORITY '"msg":"child crashed"')"
is "its level" error "$(field MESSAGE '"msg":"child crashed"' | jq -r .level)"
systemctl stop forkd.service

# A start that fails is the most important line of all.
configure forkd <<<'what = "is this"'
exits "systemctl start fails with a bad file" 1 systemctl start forkd.service
is "priority of the reason (err)" 3 "$(field PRIORITY 'unknown field')"
drop_in forkd.service <<'END'
[Service]
ExecStart=
ExecStart=/usr/bin/forkd serve --no-such-option
END
exits "systemctl start fails with a bad option" 1 systemctl start forkd.service
is "priority of the reason (err)" 3 "$(field PRIORITY "unexpected argument '--no-such-option'")"
