#!/bin/sh
# The service from its first start to its removal. The first boot ends in a panic, the second in a power-off.
# Usage: guest.sh IDLE_SECONDS
idle=$1
. /lab/common.sh

# A webhook whose secrets come by LoadCredential= from files that root alone may read. The receiver comes later
# than the event.
webhook_with_secrets() {
    dropin=/etc/systemd/system/oomwatchd.service.d/lab.conf
    mkdir -p /etc/systemd/system/oomwatchd.service.d /lab/secrets
    chmod 700 /lab/secrets
    printf 'secret-token-of-the-lab' > /lab/secrets/token
    printf 'secret-key-of-the-lab' > /lab/secrets/key
    {
        cat /usr/share/doc/oomwatchd/examples/network.conf
        echo LoadCredential=hook-token:/lab/secrets/token
        echo LoadCredential=hook-key:/lab/secrets/key
    } > $dropin
    cat > /etc/oomwatchd/config.toml << 'EOF'
[sinks.webhook]
url = "http://127.0.0.1:9098/secret-path-of-the-lab"
secret_headers = { X-Token = "hook-token" }
signing_key = "hook-key"
EOF
    systemctl daemon-reload
    part secrets; systemctl restart oomwatchd.service; active
    systemd-run --quiet --unit=hooked --property=MemoryMax=24M --property=MemorySwapMax=0 --wait labbox hog 0 hooked
    sleep 5
    part secrets_waiting; ordinary oomwatchd events deliveries
    ordinary python3 /lab/receiver.py 9098 > /lab/hooked &
    receiver=$!
    tries=0
    until [ -s /lab/hooked ] || [ $((tries += 1)) -gt 60 ]; do sleep 1; done
    part secrets_received; cat /lab/hooked
    part secrets_test; CREDENTIALS_DIRECTORY=/run/credentials/oomwatchd.service ordinary oomwatchd notify-test webhook
    # what the daemon says, shows, keeps and hands on: no line may have any of it
    {
        metrics; ordinary curl --silent --max-time 10 http://127.0.0.1:10053/
        journalctl --quiet --no-pager --output=export --unit=oomwatchd.service --unit=hooked.service
        systemctl show oomwatchd.service; systemctl status --no-pager --full oomwatchd.service
        cat "/proc/$(pid)/environ" /var/lib/private/oomwatchd/*
    } > /lab/said
    part secrets_said; wc -c < /lab/said; grep -a -E -o 'secret-(token|key|path)-of-the-lab' /lab/said
    kill "$receiver"
    rm -r /etc/systemd/system/oomwatchd.service.d /etc/oomwatchd/config.toml /lab/secrets
    systemctl daemon-reload
    systemctl restart oomwatchd.service
    active > /dev/null
}

# Over an upgrade both sockets stay open: kills in its midst are told, and no scrape is refused
upgraded() {
    part sockets_before; opened
    touch /lab/upgrading
    while [ -e /lab/upgrading ]; do
        ordinary curl --silent --output /dev/null --max-time 60 http://127.0.0.1:10053/metrics
        echo $?
        sleep 0.2
    done > /lab/scraped &
    i=0
    while [ -e /lab/upgrading ]; do
        cgroup upgrade 3M
        inside upgrade labbox hog 0 upgrade$i
        i=$((i + 1))
        sleep 1
    done &
    part upgrade; ordinary dpkg --install /lab/oomwatchd.deb; echo "ended with $?"
    part upgraded; active
    rm /lab/upgrading
    sleep 3 # what both loops have begun
    counted upgrade
    part sockets_after; opened
    part scraped; sort /lab/scraped | uniq -c
    part killed_meanwhile; oom_kills
    part told_meanwhile; metric oomwatchd_oom_kills_total
}
opened() { systemctl show --property=ActiveEnterTimestampMonotonic --value oomwatchd.socket oomwatchd-kmsg.socket; }

# The trace points for a daemon that may not use tracefs: root makes an instance for it.
traced() {
    mkdir -p /etc/systemd/system/oomwatchd.service.d
    cp /usr/share/doc/oomwatchd/examples/trace.conf /etc/systemd/system/oomwatchd.service.d/
    printf '[witness]\nmark_victim = true\n' > /etc/oomwatchd/config.toml
    systemctl daemon-reload
    part traced; systemctl restart oomwatchd.service; active
    part traced_user; grep -E '^(Uid|CapEff):' "/proc/$(pid)/status"
    systemd-run --quiet --unit=marked --property=MemoryMax=24M --property=MemorySwapMax=0 --wait labbox hog 0 marked
    sleep 12 # what was marked is compared every ten seconds
    part traced_metrics; metrics | grep -E '^oomwatchd_(marked|unreported|victim_looks)'
    systemctl stop oomwatchd.socket oomwatchd-kmsg.socket oomwatchd.service
    part traced_left; ls /sys/kernel/tracing/instances
    rm -r /etc/systemd/system/oomwatchd.service.d /etc/oomwatchd/config.toml
    systemctl daemon-reload
    systemctl start oomwatchd.socket oomwatchd-kmsg.socket oomwatchd.service
    active > /dev/null
}

if [ ! -e /lab/panicked ]; then
    part kernel; uname -r
    part active; active
    part failed; systemctl --failed --plain --no-legend
    part boot_seconds; cut -d' ' -f1 /proc/uptime
    part memory_at_start; memory
    part pid; pid

    part unit; systemd-run --quiet --unit=greedy --property=MemoryMax=24M --property=MemorySwapMax=0 \
        --wait labbox hog 0 greedy; systemctl show --property=Result --value greedy.service
    counted unit

    # shown only of senders that are root, or may say so
    part unit_journal; journal --unit=greedy.service --identifier=oomwatchd
    part unit_status; ordinary systemctl status --no-pager --full greedy.service
    part unit_sender; grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$(pid)/status"

    if [ "$idle" -gt 0 ]; then
        sleep 90 # a victim's unit is watched for a minute after the kill
        part idle_before; spent
        sleep "$idle"
        part idle_after; spent
    fi

    part storm
    i=0
    while [ $i -lt 25 ]; do
        cgroup $i 3M
        inside $i labbox hog 0 storm$i &
        i=$((i + 1))
    done
    wait
    counted storm

    part global; systemd-run --quiet --unit=ravenous --wait labbox hog 0 ravenous
    counted global

    part oom_kills; oom_kills
    part metrics; metrics
    part meminfo; cat /proc/meminfo
    part events; events
    part journal_by_id; journal MESSAGE_ID=e73579b0647c4e32913e05953b325c1b
    part journal_by_unit; journal OBJECT_SYSTEMD_UNIT=greedy.service --identifier=oomwatchd
    part pid_after; pid
    part restarts; systemctl show --property=NRestarts --value oomwatchd.service
    part memory_after; memory
    part log; journalctl --quiet --no-pager --output=cat --unit=oomwatchd.service

    if ! small; then
        upgraded
        part events_after_upgrade; events
        webhook_with_secrets
        traced
    fi

    part panic
    touch /lab/panicked
    sync
    echo 1 > /proc/sys/vm/panic_on_oom
    labbox hog 0 doom
fi

part active_after_panic; active
sleep 5
part pstore; find /sys/fs/pstore /var/lib/systemd/pstore /run/oomwatchd/ -type f
part events_after_panic; events
part journal_of_panic; journal MESSAGE_ID=aef379ee17fb448f949911a93b8b0447
systemctl restart oomwatchd.service
part active_after_restart; active
sleep 5
part events_after_restart; events
part log_after_panic; journalctl --quiet --no-pager --boot --output=cat --unit=oomwatchd.service
if ! small; then
    # the README's commands as they stand there; its package is installed already, and no network is needed
    mkdir -p /lab/dist
    ln -s ../oomwatchd.deb /lab/dist/oomwatchd_lab_all.deb
    cp /lab/readme.toml /etc/oomwatchd/config.toml
    ordinary python3 /lab/receiver.py 9099 > /lab/received &
    receiver=$!
    part readme; (cd /lab && ordinary sh readme.sh 2>&1); echo "ended with $?"
    part readme_received; cat /lab/received
    kill "$receiver"
    rm -r /etc/systemd/system/oomwatchd.service.d # whoever puts a drop-in there takes it away
    part remove; dpkg --remove oomwatchd
    part running_after_remove; systemctl is-active oomwatchd.service oomwatchd-kmsg.socket
    part kept_after_remove; ls /var/lib/private/oomwatchd
    part purge; dpkg --purge oomwatchd
    part left_after_purge; find / -xdev -path /proc -prune -o -path /lab -prune -o -name '*oomwatchd*' -print
fi
part end
sync
systemctl --force poweroff
