#!/bin/bash
# The Debian package, from its installation to a purge. It is /test/forkd.deb.
. "$(dirname "$0")/lib.sh"

# install_deb FILE: by its path, so that nothing is fetched
install_deb() { apt-get install -y -q "$1"; }

# another_version VERSION: a package that differs in nothing else
another_version() {
    dpkg-deb --raw-extract /test/forkd.deb /run/deb
    sed -i "s/^Version: .*/Version: $1/" /run/deb/DEBIAN/control
    dpkg-deb --build /run/deb "/run/forkd_$1.deb" >/dev/null
    rm -r /run/deb
}

everywhere() {
    local protocol host
    for protocol in tcp udp; do
        for host in 127.0.0.1 ::1; do echoes $protocol $host 7; done
    done
}

# What a package or its units may have left.
leftovers() {
    find /etc /usr /run /var /tmp -xdev -iname '*forkd*' ! -path '/run/forkd_*.deb' ! -path '/var/log/*' \
        ! -path '/var/cache/*' ! -path '/run/systemd/propagate/*' 2>/dev/null || true
}
before=$(leftovers)
rm -f /var/lib/man-db/auto-update # an index of all manual pages would take seconds each time

exits "apt installs it" 0 install_deb /test/forkd.deb
everywhere
is "both units are enabled" $'enabled\nenabled' "$(systemctl is-enabled forkd.socket forkd.service)"
is "both units are active" $'active\nactive' "$(systemctl is-active forkd.socket forkd.service)"
counts forkd.service 1
hold one nc 127.0.0.1 7
hold two socat ::1 7
counts forkd.service 3
release one two
counts forkd.service 1
main=$(main_pid forkd.service)
[[ $(ps -o user= -p "$main") != root ]] || fail "it runs as root"
matches "journalctl has its log" 'ready pid=' "$(journal forkd.service)"
matches "forkd status answers" "forkd pid $main" "$(forkd status)"
exits "systemd-analyze verify has nothing to say" 0 systemd-analyze verify \
    forkd.service forkd.socket forkd@lab.service forkd@lab.socket
is "nor has it said anything" "" "$output"
for page in forkd.1 forkd.toml.5; do
    exits "there is a manual page $page" 0 man --where "${page##*.}" "${page%.*}"
done

# an instance by socket, one that binds for itself
cp /etc/forkd/forkd.toml /etc/forkd/lab.toml
drop_in forkd@lab.socket <<<$'[Socket]\nListenStream=7107\nListenDatagram=7107'
exits "an instance with sockets" 0 systemctl enable --now forkd@lab.socket
echoes tcp ::1 7107
echoes udp 127.0.0.1 7107
echo 'listen = [{ endpoints = ["tcp://localhost:77", "udp://[::1]:77"] }]' >/etc/forkd/own.toml
drop_in forkd@own.service </usr/share/doc/forkd/examples/bind.conf
exits "an instance that binds for itself" 0 systemctl enable --now forkd@own.service
echoes tcp 127.0.0.1 77
echoes udp ::1 77

another_version 0.1.0-2
echo '# changed by the operator' >>/etc/forkd/forkd.toml
hold one nc 127.0.0.1 7
instance=$(main_pid forkd@own.service)
start_load tcp://127.0.0.1:7 tcp://[::1]:7 udp://127.0.0.1:7 udp://[::1]:7 tcp://127.0.0.1:7107
install_deb /run/forkd_0.1.0-2.deb >/run/upgrade.log 2>&1 &
upgrade=$!
eventually "the upgrade stops the service" has forkd.service SubState stop-sigterm
say one "within the grace"
release one
wait "$upgrade" || fail "apt upgrades it"$'\n'"$(</run/upgrade.log)"
ok "apt upgrades it"
stop_load
everywhere
[[ $(main_pid forkd.service) != "$main" && $(main_pid forkd@own.service) != "$instance" ]] || fail "old processes"
is "the operator's configuration" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml)"

systemctl disable --now --quiet forkd.socket forkd.service
another_version 0.1.0-3
exits "an upgrade of a disabled service" 0 install_deb /run/forkd_0.1.0-3.deb
is "leaves it disabled" $'disabled\ndisabled' "$(systemctl is-enabled forkd.socket forkd.service || true)"
is "and stopped" $'inactive\ninactive' "$(systemctl is-active forkd.socket forkd.service || true)"
systemctl enable --now --quiet forkd.service
everywhere

exits "apt removes it" 0 apt-get remove -y -q forkd
is "processes of it" 0 "$(pgrep -c forkd || true)"
is "who listens" "" "$(ss --no-header --listening --numeric --tcp --udp 'sport = :7 or sport = :77 or sport = :7107')"
is "the operator's configuration" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml)"

rm -r /etc/forkd/lab.toml /etc/forkd/own.toml /etc/systemd/system/forkd@*.d # the operator's own
exits "apt purges it" 0 apt-get purge -y -q forkd
is "what is left" "$before" "$(leftovers)"
is "units" "" "$(systemctl list-units --all --no-legend --plain 'forkd*')"
