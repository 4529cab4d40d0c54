#!/bin/bash
# The Debian package, from its installation to a purge. It is /test/forkd.deb.
. "$(dirname "$0")/lib.sh"

# install_deb [OPTION] FILE: by its path, so that nothing is fetched
install_deb() { apt-get install -y -q "$@"; }

# another_version VERSION: a package that differs in nothing else
another_version() {
    dpkg-deb --raw-extract /test/forkd.deb /run/deb
    sed -i "s/^Version: .*/Version: $1/" /run/deb/DEBIAN/control
    dpkg-deb -Znone --build /run/deb "/run/forkd_$1.deb" >/dev/null
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
find /etc/systemd/system -mindepth 1 -maxdepth 1 -type d -empty -delete # a purge of any package does that
before=$(leftovers)
rm -f /var/lib/man-db/auto-update # an index of all manual pages would take seconds each time

cp /test/forkd.deb forkd_0.1.0-1_amd64.deb
recipes >/dev/null
follow with-the-package
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
start_load tcp://127.0.0.1:7 tcp://[::1]:7 udp://127.0.0.1:7 udp://[::1]:7 tcp://127.0.0.1:7107 tcp://127.0.0.1:77
exits "apt upgrades it" 0 install_deb /run/forkd_0.1.0-2.deb
say one "after the upgrade"
stop_load
everywhere
is "the processes are the same" "$main $instance" "$(main_pid forkd.service) $(main_pid forkd@own.service)"
for unit in forkd.service forkd@lab.service forkd@own.service; do
    matches "$unit has the new program" 'upgraded: this program has replaced the one before' "$(journal "$unit")"
done
release one

# a version that can't be replaced in place: it is restarted, and connections finish within its grace
drop_in forkd.service <<<$'[Service]\nEnvironment=FORKD_PORTABLE=1'
systemctl restart forkd.service
main=$(main_pid forkd.service)
hold one nc 127.0.0.1 7
another_version 0.1.0-2a
install_deb /run/forkd_0.1.0-2a.deb >/run/upgrade.log 2>&1 &
upgrade=$!
eventually "the upgrade stops the service" has forkd.service SubState stop-sigterm
say one "within the grace"
release one
wait "$upgrade" || fail "apt upgrades it"$'\n'"$(</run/upgrade.log)"
ok "apt upgrades it"
everywhere
[[ $(main_pid forkd.service) != "$main" ]] || fail "the old process"
rm -r /etc/systemd/system/forkd.service.d
systemctl daemon-reload
systemctl restart forkd.service
is "the operator's configuration" "# changed by the operator" "$(tail -n 1 /etc/forkd/forkd.toml)"

# A restart would end what serves.
main=$(main_pid forkd.service)
cp /etc/forkd/forkd.toml /run
echo 'what = "is this"' >>/etc/forkd/forkd.toml
another_version 0.1.0-3
exits "an upgrade with a configuration that can't be served" 0 dpkg --install /run/forkd_0.1.0-3.deb
matches "says so" "unknown field .what.*forkd.service is not restarted" "$output"
is "and leaves the old service running" "$main" "$(main_pid forkd.service)"
echoes tcp ::1 7
mv /run/forkd.toml /etc/forkd
exits "a restart with the mended one" 0 systemctl restart forkd.service

# What the operator has done to the units, an upgrade leaves as it is.
units=(forkd.socket forkd.service)
state() { { systemctl is-enabled "${units[@]}" || true; systemctl is-active "${units[@]}" || true; } | paste -sd " "; }
another_version 0.1.0-4
systemctl stop --quiet "${units[@]}"
exits "an upgrade of a service that is stopped" 0 dpkg --install /run/forkd_0.1.0-4.deb
is "leaves it stopped" "enabled enabled inactive inactive" "$(state)"
systemctl disable --quiet "${units[@]}"
exits "a downgrade of a service that is disabled" 0 dpkg --install /run/forkd_0.1.0-2.deb
is "leaves it disabled" "disabled disabled inactive inactive" "$(state)"
systemctl enable --quiet "${units[@]}"
systemctl mask --quiet "${units[@]}"
exits "another installation of a service that is masked" 0 dpkg --install /run/forkd_0.1.0-2.deb
is "leaves it masked" "masked masked inactive inactive" "$(state)"
systemctl unmask --quiet "${units[@]}"
systemctl start "${units[@]}"

# Sockets of the operator's own, for the service: as it is removed, there is none for them.
install -m 644 /usr/share/doc/forkd/examples/forkd-metrics.socket /etc/systemd/system
sed -i 's/^#metrics = .*/metrics = "systemd:metrics"/' /etc/forkd/forkd.toml
systemctl enable --quiet forkd-metrics.socket
systemctl stop "${units[@]}"
systemctl start forkd-metrics.socket "${units[@]}"
scraped() { curl --silent --fail --max-time "$LIMIT" http://127.0.0.1:9707/metrics; }
exits "the metrics answer" 0 scraped
all_answer() {
    echoes tcp ::1 7
    echoes tcp ::1 7107
    echoes tcp 127.0.0.1 77
    exits "the metrics answer" 0 scraped
}
listening() {
    ss --no-header --listening --numeric --tcp --udp 'sport = :7 or sport = :77 or sport = :7107 or sport = :9707'
}
is_gone() {
    is "processes of it" 0 "$(pgrep -c forkd || true)"
    is "who listens" "" "$(listening)"
}
main=$(main_pid forkd.service)
dpkg_calls() { "/var/lib/dpkg/info/forkd.$1" "${@:2}"; }
exits "an upgrade that fails" 0 dpkg_calls postinst abort-upgrade 0.1.0-3
is "stops nothing, and restarts nothing" "$main" "$(main_pid forkd.service)"
exits "a removal stops all" 0 dpkg_calls prerm remove
is_gone
exits "and when dpkg gives it up" 0 dpkg_calls postinst abort-remove in-favour other 1
all_answer

# a service that has nothing but its name from forkd
install -m 644 /dev/stdin /etc/systemd/system/forkd-other.service <<END
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
END
systemctl enable --quiet forkd-other.service

exits "apt removes it" 0 apt-get remove -y -q forkd
is_gone
is "the operator's configuration" 'metrics = "systemd:metrics"' "$(grep '^metrics' /etc/forkd/forkd.toml)"
exits "apt installs it again" 0 install_deb /run/forkd_0.1.0-3.deb
all_answer
is "another service is" inactive "$(property forkd-other.service ActiveState)"

rm -r /etc/forkd/lab.toml /etc/forkd/own.toml /etc/systemd/system/forkd@{lab.socket,own.service}.d # the operator's own
purge() { # purge COMMAND...
    exits "a purge" 0 "$@"
    is_gone
}
purge apt-get purge -y -q forkd
is "another service is" enabled "$(systemctl is-enabled forkd-other.service)"
systemctl disable --quiet forkd-other.service
rm /etc/systemd/system/forkd-other.service
rm /etc/systemd/system/forkd-metrics.socket # the same
is "what is left" "$before" "$(leftovers)"
is "units" "" "$(systemctl list-units --all --no-legend --plain 'forkd*')"
exits "dpkg installs it after a purge" 0 dpkg --install /test/forkd.deb
is "it is as it was at first" "enabled enabled active active" "$(state)"
everywhere
purge dpkg --purge forkd

# Where nothing may be started, or nothing can.
install -m 755 /dev/stdin /usr/sbin/policy-rc.d <<<$'#!/bin/sh\nexit 101'
exits "dpkg installs it under a policy that forbids to start it" 0 dpkg --install /test/forkd.deb
is "it is not started" "enabled enabled inactive inactive" "$(state)"
rm /usr/sbin/policy-rc.d
exits "an upgrade without the policy" 0 dpkg --install /run/forkd_0.1.0-2.deb
is "starts nothing, either" "enabled enabled inactive inactive" "$(state)"
purge dpkg --purge forkd
mv /run/forkd_0.1.0-*.deb /test
without_systemd() { unshare --mount sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh "$@"; }
exits "dpkg installs it in a root where no systemd runs" 0 without_systemd dpkg --install /test/forkd.deb
exits "and upgrades it" 0 without_systemd dpkg --install /test/forkd_0.1.0-2.deb
systemctl daemon-reload
is "it is enabled" "enabled enabled inactive inactive" "$(state)"
exits "and purges it" 0 without_systemd dpkg --purge forkd
is "what is left" "$before" "$(leftovers)"
