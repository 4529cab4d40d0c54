#!/bin/bash
# The blocks of docs/SYSTEMD.md, each run word by word while the service runs; it must answer on port 7 afterwards.
#
# What a recipe promises beside port 7 is asked by a function check_NAME, if there is one.
. "$(dirname "$0")/lib.sh"

unit_files=/etc/systemd/system

# Stops all, and makes a system with the service as it is installed.
reset() {
    systemctl stop 'forkd*' 'echo*'
    rm -rf "$unit_files"/{,*/}{forkd,echo}* /etc/forkd/* /etc/logrotate.d/forkd
    cp /test/packaging/forkd.toml /etc/forkd
    systemctl daemon-reload
    systemctl reset-failed # the restarts of all recipes together would be too many
    exits "the service runs" 0 systemctl enable --now --quiet forkd.service
}

# refused COMMAND...: a client that gets no echo within a second
refused() {
    local output
    output=$(timeout 1 "$@" <<<"anybody?" 2>&1 || true)
    [[ $output != *anybody* ]] || fail "this client is served: $*"
    ok "this client is not served: $*"
}

check_other-addresses() {
    echoes tcp ::1 7007
    refused nc -N ::1 7
    refused nc -u ::1 7
}

check_only-some-clients() {
    ip address add 10.9.9.9/32 dev lo
    refused nc -N 10.9.9.9 7
    refused nc -u 10.9.9.9 7
    ip address add 192.168.1.1/32 dev lo
    echoes tcp 192.168.1.1 7
    ip address flush to 10.9.9.9/32 dev lo
    ip address flush to 192.168.1.1/32 dev lo
}

check_tcp-only() { refused nc -u 127.0.0.1 7; }

# undo FILE...: as docs/SYSTEMD.md says; the units that were enabled are $enabled
undo() {
    local enabled=${enabled-}
    systemctl stop forkd.socket
    [[ -z $enabled ]] || systemctl disable --quiet "$enabled"
    rm "$@"
    cp /test/packaging/forkd.toml /etc/forkd
    systemctl daemon-reload
    exits "a start after the recipe is undone" 0 systemctl start forkd.service
}

check_udp-with-a-model-of-its-own() {
    counts forkd.service 3 # two workers for UDP
    exits "systemctl stop forkd.socket" 0 systemctl stop forkd.socket
    is "it stops the other one" inactive "$(property forkd-udp.socket ActiveState)"
    exits "systemctl start forkd.service" 0 systemctl start forkd.service
    echoes udp 127.0.0.1 7
    enabled=forkd-udp.socket undo "$unit_files"/{forkd-udp.socket,forkd.socket.d/tcp-only.conf}
}

check_a-unix-socket-for-a-group() {
    local client=(nc -NU /run/forkd.sock) user=(setpriv --reuid nobody --regid nogroup)
    is "a member of the group has an echo" hello "$("${user[@]}" --groups echo-clients "${client[@]}" <<<hello)"
    refused "${user[@]}" --clear-groups "${client[@]}"
    undo "$unit_files/forkd.socket.d/unix-group.conf"
    [[ ! -e /run/forkd.sock ]] || fail "the socket file is still there"
    ok "the socket file is gone"
}

check_metrics() {
    matches "the metrics" '^HTTP/1.1 200 .*forkd_build_info' \
        "$(printf 'GET /metrics HTTP/1.0\r\n\r\n' | timeout "$LIMIT" nc -N 127.0.0.1 9707)"
    enabled=forkd-metrics.socket undo "$unit_files/forkd-metrics.socket"
    is "the sockets that are left" forkd.socket "$(systemctl list-units --plain --no-legend 'forkd*.socket' | cut -d ' ' -f 1)"
}

check_more-clients() {
    is "the limits" $'9000\n65536' "$(systemctl show --property TasksMax,LimitNOFILE --value forkd.service | sort -n)"
}

check_an-instance() { matches "the instance has an echo" $'\nhello$' "$said"; }

check_an-instance-that-binds() {
    echoes tcp 127.0.0.1 7207
    echoes udp ::1 7207
}

check_a-script-for-each-connection() { matches "the script has an answer" $'\nhello Alice$' "$said"; }

check_a-pool-of-a-program() {
    local before broken=$'#!/usr/bin/python3\nimport database'
    matches "a worker has an answer" $'\nworker [01]: hello' "$said"
    counts forkd@app.service 3
    before=$(pgrep -P "$(main_pid forkd@app.service)")
    matches "where one says how it is" 'NOTIFY_SOCKET=/run/forkd-app/forkd-notify[.]' \
        "$(tr '\0' '\n' <"/proc/$(head -n 1 <<<"$before")/environ")"
    install -m 755 /dev/stdin /usr/local/lib/app/serve <<<"$broken"
    exits "a reload of a program that fails" 1 systemctl reload forkd@app.service
    eventually "its last words are in the journal" logs forkd@app.service "reload failed.*No module named 'database'"
    is "the workers" "$before" "$(pgrep -P "$(main_pid forkd@app.service)")"
    matches "they serve" '^worker' "$(echo hello | nc -N localhost 7607)"
    exits "systemctl stop" 0 systemctl stop forkd@app.socket forkd@app.service
}

check_outgoing-connections() { matches "the echo comes back through the instance" $'\nhello$' "$said"; }

check_files-of-a-home-directory() {
    matches "the instance has an answer" $'\nHTTP/1.1 200 .*\r\n\r\nhello$' "$said"
    exits "nothing there can be executed" 0 grep ' /home/alice/www ro,[^ ]*noexec' "/proc/$(main_pid forkd@www.service)/mountinfo"
    chmod 700 /home/alice
    matches "the directory may be its owner's alone" 'hello$' \
        "$(printf 'GET /index.html HTTP/1.0\r\n\r\n' | timeout "$LIMIT" nc -N localhost 7507)"
}

check_each-connection-in-the-journal() {
    echoes tcp 127.0.0.1 7
    eventually "the connection is in the journal" logs forkd.service 'connection accepted'
}

check_the-log-in-a-file() {
    local log=/var/log/forkd.log rotate
    has_line() { grep -q -- "$1" "$log"; }
    eventually "the log is in the file" has_line '^forkd: ready pid='
    hold one nc 127.0.0.1 7
    rotate=$(sed -n '/postrotate/,/endscript/p' /etc/logrotate.d/forkd | sed '1d;$d')
    if command -v logrotate >/dev/null; then
        exits "logrotate" 0 logrotate --force --state /run/logrotate /etc/logrotate.d/forkd
    else
        mv "$log" "$log.1"
        exits "what logrotate runs: $rotate" 0 bash -c "$rotate"
    fi
    is "the new file" "forkd: the new configuration is in force" "$(tail -n 1 "$log")"
    kill -SEGV "$(pgrep -P "$(main_pid forkd.service)")"
    eventually "the log goes on there" has_line 'child crashed'
    exits "and not in the old one" 1 grep 'child crashed' "$log.1"
    release one
    # another process's file is not the service's
    exits "a reload by hand" 0 bash -c 'forkd reload 2>/run/other.log'
    is "it leaves the log where it is" "" "$(</run/other.log)"
    is "the last line" "forkd: the new configuration is in force" "$(tail -n 1 "$log")"
}

check_as-a-sysv-daemon() {
    echoes tcp 127.0.0.1 7
    [[ $(main_pid forkd-sysv.service) != 0 ]] || fail "the unit has no main process"
}

check_reading-the-journal() { matches "the journal has the service's lines" 'ready pid=' "$said"; }

# Those that serve no UDP on port 7, as they say.
readonly TCP_ONLY=' tcp-only as-an-inetd-service '

recipes=$(recipes)
for check in $(compgen -A function check_); do
    [[ $'\n'$recipes$'\n' == *$'\n'"${check#check_}"$'\n'* ]] || fail "$check: docs/SYSTEMD.md has no such recipe"
done

# what docs/SYSTEMD.md calls the project's directory
cp -r /test/forkd /test/packaging /test/systemd .
follow without-the-package
echoes tcp ::1 7
echoes udp 127.0.0.1 7
for recipe in $recipes; do
    case $recipe in
    with-the-package) continue ;; # package.sh follows this one
    without-the-package) continue ;;
    esac
    printf '\n--- %s\n' "$recipe"
    reset
    follow "$recipe"
    if declare -F "check_$recipe" >/dev/null; then "check_$recipe"; fi
    echoes tcp 127.0.0.1 7
    [[ $TCP_ONLY == *" $recipe "* ]] ||
        is "echo by UDP" "a datagram" "$(socat -t.3 - UDP:127.0.0.1:7 <<<"a datagram")"
done
