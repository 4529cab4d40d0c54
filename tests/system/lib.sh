# What the scripts of this directory share.
#
# A script runs as root in a system of its own (boot.sh), so it need not clean up. It says `ok` for each
# thing that is as it should be, and ends at the first that is not, showing the journal.
# shellcheck shell=bash
set -Eeuo pipefail

readonly LIMIT=20 # seconds that anything may take; long, because the machine may be busy
# shellcheck disable=SC2034 # scripts use it
readonly CONTROL=/run/forkd/control.sock

report() {
    local status=$?
    trap - ERR
    set +e
    [[ $status -ne 0 ]] || return
    printf '\n--- units\n'
    systemctl status --no-pager --lines=0 'forkd*'
    printf '\n--- the last lines of their journal\n'
    journalctl --no-pager -o short-precise -n 80 -u 'forkd*'
}
trap report EXIT
trap 'echo "FAILED: status $? of: $BASH_COMMAND (${BASH_SOURCE[0]##*/}:$LINENO)"' ERR

ok() { printf '%4s s  ok: %s\n' "$SECONDS" "$*"; }

fail() {
    trap - ERR
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# is WHAT EXPECTED SEEN
is() {
    [[ $3 == "$2" ]] || fail "$1"$'\n  expected: '"$2"$'\n  seen:     '"$3"
    ok "$1: $2"
}

# matches WHAT REGEX SEEN
matches() {
    [[ $3 =~ $2 ]] || fail "$1"$'\n  expected: '"$2"$'\n  seen:     '"$3"
    ok "$1"
}

# exits WHAT STATUS COMMAND...: its output is in $output
exits() {
    local what=$1 expected=$2 status=0
    shift 2
    output=$("$@" 2>&1) || status=$?
    [[ $status == "$expected" ]] || fail "$what"$'\n  exit status expected: '"$expected, seen: $status"$'\n'"$output"
    ok "$what"
}

# eventually WHAT COMMAND...: asks again until the command succeeds
eventually() {
    local what=$1 until=$((SECONDS + LIMIT))
    shift
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $until ]] || fail "not within $LIMIT s: $what"$'\n  asked by: '"$*"
        sleep 0.05
    done
    ok "$what"
}

property() { systemctl show --property "$2" --value "$1"; }

has() { [[ $(property "$1" "$2") == "$3" ]]; }

main_pid() { property "$1" MainPID; }

# The processes that the control group of a unit holds: not only those that the daemon knows of.
pids() {
    local group root
    group=$(property "$1" ControlGroup)
    for root in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [[ -n $group && -d $root$group ]] || continue
        find "$root$group" -name cgroup.procs -exec cat {} +
        return
    done
}

processes() { pids "$1" | wc -l; }

has_processes() { [[ $(processes "$1") -eq $2 ]]; }

# counts UNIT N: the unit comes to have N processes
counts() {
    local until=$((SECONDS + LIMIT))
    until has_processes "$1" "$2"; do
        [[ $SECONDS -lt $until ]] || fail "$1 has $(processes "$1") processes instead of $2"
        sleep 0.05
    done
    ok "$1 has $2 processes"
}

# The forkd under test, and its units.
install_forkd() {
    install -m 755 /test/forkd /usr/bin/forkd
    install -m 644 /test/systemd/*.service /test/systemd/*.socket /usr/lib/systemd/system
    install -D -m 644 -t /usr/share/doc/forkd/examples /test/systemd/examples/*
    systemctl daemon-reload
}

# configure NAME <<TOML: /etc/forkd/NAME.toml
configure() { install -D -m 644 /dev/stdin "/etc/forkd/$1.toml"; }

# drop_in UNIT <<SETTINGS: on top of the unit as it is shipped
drop_in() {
    install -D -m 644 /dev/stdin "/etc/systemd/system/$1.d/test.conf"
    systemctl daemon-reload
}

# client PROGRAM tcp|udp HOST PORT: makes $client, a command whose input and output are the connection
client() {
    local program=$1 protocol=$2 host=$3 port=$4
    [[ $program != socat || $host != *:* ]] || host="[$host]"
    case $program-$protocol in
    nc-tcp) client=(nc -N "$host" "$port") ;;
    nc-udp) client=(nc -u -w1 "$host" "$port") ;;
    ncat-tcp) client=(ncat "$host" "$port") ;;
    socat-tcp) client=(socat -t5 - "TCP:$host:$port") ;;
    socat-udp) client=(socat -t.3 - "UDP:$host:$port") ;;
    *) fail "no such client: $program for $protocol" ;;
    esac
}

# echoes tcp|udp HOST PORT: what each client sends comes back; their exit status would tell nothing
echoes() {
    local program programs=(nc ncat socat) answer text
    [[ $1 == tcp ]] || programs=(nc socat) # ncat with a time limit prints no echo, and never ends without
    for program in "${programs[@]}"; do
        text="hello $RANDOM from $program"
        client "$program" "$@"
        answer=$(timeout "$LIMIT" "${client[@]}" <<<"$text" 2>&1) || true
        [[ $answer == "$text" ]] || fail "$program: echo of '$text' by $1 $2 $3: '$answer'"
    done
    ok "echo by $1 $2 $3 for ${programs[*]}"
}

declare -A held=()

# hold NAME PROGRAM HOST PORT: a TCP client that stays; `say` it something, and `release` it
hold() {
    mkfifo "/run/$1.in"
    # it has its input open for writing too, so that the input doesn't end
    client "$2" tcp "$3" "$4"
    "${client[@]}" <>"/run/$1.in" >"/run/$1.out" 2>&1 &
    held[$1]=$!
    say "$1" "hello from $1"
}

heard() { [[ $(tail -n 1 "/run/$1.out") == "$2" ]]; }

# say NAME TEXT: a client that is held sends a line, and gets it back
say() {
    echo "$2" >"/run/$1.in"
    eventually "$1, a client that is held, has the echo of '$2'" heard "$@"
}

# Whether the server has ended the connection of a client that is held: not each client minds.
is_cut() { ! ss -H -t -n -p state established | grep -q "pid=${held[$1]},"; }

release() {
    local name
    for name; do
        kill "${held[$name]}" 2>/dev/null || true
        wait "${held[$name]}" || true
        unset "held[$name]"
        rm "/run/$name.in" "/run/$name.out"
    done
}

# start_load ENDPOINT...: clients without a break (load.rs)
start_load() {
    : >/run/loading
    /test/load /run/loading "$@" >/run/load.out &
    load=$!
}

# Ends them; each must have had its echo.
stop_load() {
    rm /run/loading
    wait "$load" || fail "under load"$'\n'"$(tail -n 20 /run/load.out)"
    ok "under load: $(tail -n 1 /run/load.out)"
}

# start_crowd COUNT: clients of port 7 that stay, and send a line again and again (hold.rs)
start_crowd() {
    ulimit -S -n "$(ulimit -H -n)"
    : >/run/crowding
    /test/load hold /run/crowding 127.0.0.1:7 "$1" >/run/crowd.out &
    crowd=$!
}

# How the crowd is: served=N waiting=N cut=N
crowd_is() { [[ $(tail -n 1 /run/crowd.out) == "$1" ]]; }

# Ends it; no client may have lost its connection.
stop_crowd() {
    rm /run/crowding
    wait "$crowd" || fail "of those who stay"$'\n'"$(tail -n 20 /run/crowd.out)"
    ok "of those who stay: $(tail -n 1 /run/crowd.out)"
}

# journal UNIT [OPTION|MATCH...]: what the processes of a unit have said
journal() {
    local unit=$1
    shift
    journalctl --sync
    journalctl --no-pager --output cat "_SYSTEMD_UNIT=$unit" "$@"
}

logs() { journal "$1" | grep -E -- "$2"; }

# Names the recipes of docs/SYSTEMD.md, in their order: each section that has blocks. Writes block NUMBER of recipe NAME
# to /run/recipes/NAME/NUMBER.KIND.
recipes() {
    awk '
        function fail(why) { print FILENAME ":" FNR ": " why >"/dev/stderr"; exit 1 }
        /^```/ && file { close(file); file = ""; next }
        file { print >file; next }
        /^```/ {
            kind = substr($0, 4)
            if (kind !~ /^(sh|ini|toml)$/) { fail("a block that is neither commands (sh) nor a file (ini, toml)") }
            directory = "/run/recipes/" name
            if (!count[name]++) { print name; system("mkdir -p " directory) }
            file = sprintf("%s/%02d.%s", directory, count[name], kind)
            next
        }
        /^(    |\t)/ { fail("a block without a fence") }
        /^##+ / { sub(/^##+ /, ""); name = tolower($0); gsub(/[^a-z0-9 -]/, "", name); gsub(/ /, "-", name) }
    ' /test/SYSTEMD.md
}

# follow NAME: does what the blocks of a recipe say; $said is what the last commands have printed
follow() {
    local block path
    said=
    for block in "/run/recipes/$1"/*; do
        if [[ $block == *.sh ]]; then
            exits "${block#/run/recipes/}: $(tr '\n' ';' <"$block")" 0 bash -euo pipefail "$block"
            said=$output
        else
            read -r _ path <"$block"
            [[ $(head -n 1 "$block") == "# /"* ]] || fail "$block: its first line doesn't say which file it is"
            install -D -m 644 "$block" "$path"
            ok "${block#/run/recipes/}: $path"
        fi
    done
}
