#!/bin/sh
# The lab's hooks, by the name this file is called under. A node is a slurmd in
# namespaces of its own; the file `hold` beside the hooks keeps new ones from starting.
given=$(env)
here=$(dirname "$0")
lab=$(dirname "$here")
PATH=$(/bin/cat "$lab/path") SLURM_CONF=$lab/slurm.conf
export PATH SLURM_CONF
hook=$(basename "$0")
echo "$given" > "$lab/$hook.env"
echo "$(date +%s.%3N) $hook $*$SLURM_JOB_ID" >> "$lab/hooks.log"

# A slurmd that starts within the second of slurmctld's request may be taken for one from
# before it (crates/guest/src/slurm.rs).
start() {
    number=${1#n}
    ip netns add "$1"
    ip link add "h$1" type veth peer name eth0 netns "$1"
    ip link set "h$1" master br0 up
    ip -n "$1" addr add "10.9.0.$((10 + number))/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" link set lo up
    mkdir -p "$lab/spool/$1"
    # Where there is a key of Slurm's, slurmd needs it before it has its configuration.
    key=
    [ -e "$lab/slurm.key" ] && key="SLURM_SACK_KEY=$lab/slurm.key"
    setsid ip netns exec "$1" unshare -m -u -p -f --kill-child --mount-proc sh -c \
        "hostname $1; sleep 1; exec env $key slurmd -D -N $1 -b --conf-server $(cat "$lab/servers")" \
        > "$lab/slurmd.$1.log" 2>&1 < /dev/null &
    echo $! > "$lab/$1.pid"
    # Newer slurmctlds (24.11.5) kill what is left of a hook's process group when it ends.
    while kill -0 $! && ! grep -q "^$! ([^)]*) . [0-9]* $! $! " /proc/$!/stat; do sleep 0.01; done 2>/dev/null
}

stop() {
    ip netns pids "$1" 2>/dev/null | xargs -r kill -9 2>/dev/null
    ip link del "h$1" 2>/dev/null
    ip netns del "$1" 2>/dev/null
}

case $hook in
Resume) [ -e "$here/hold" ] || for node in $(scontrol show hostnames "$1"); do start "$node"; done ;;
Suspend | ResumeFail | Kill) for node in $(scontrol show hostnames "$1"); do stop "$node"; done ;;
Start) start "$1" ;;
PrologSlurmctld)
    # Until the nodes are up, or the job has lost them: as long as this runs, a requeued job waits ("Cleaning").
    while sinfo -h -n "$SLURM_JOB_NODELIST" -O StateComplete:80 | grep -qE 'power(ed_down|ing_up)' &&
        squeue -h -j "$SLURM_JOB_ID" -o %T | grep -q CONFIGURING; do sleep 0.05; done
    ;;
esac
exit 0
