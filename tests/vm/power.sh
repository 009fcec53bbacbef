#!/bin/sh
# First boot: cgroups at their limits one after another, until the power is cut; each event that the journal
# shows goes out as a line "id ID". Second boot: one more.
. /lab/common.sh
if [ ! -e /lab/cut ]; then
    touch /lab/cut
    sync
    part active; active
    part ids
    journalctl --quiet --follow --lines=all --output=cat --output-fields=OOM_EVENT_ID \
        MESSAGE_ID=e73579b0647c4e32913e05953b325c1b | sed --unbuffered 's/^/id /' &
    i=0
    while :; do
        cgroup power$i 4M
        inside power$i labbox hog 0 power$i
        i=$((i + 1))
    done
fi
part active_after_cut; active
part after_cut
cgroup after 4M
inside after labbox hog 0 after
counted after
part oom_kills; oom_kills
part log; log
part end
systemctl stop oomwatchd.socket oomwatchd-kmsg.socket oomwatchd.service
sync
systemctl --force poweroff
