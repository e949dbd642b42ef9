#!/bin/bash
# Stays until the file $1 of the home folder is there. Each second it says, in a file for each job, what time it is
# by this machine's clock, which machine that is, and how often Slurm has started the job again.
read -r boot < /proc/sys/kernel/random/boot_id
tick() {
    printf '%s\n' "begin=$begin" "end=$EPOCHREALTIME" "host=$(hostname)" "boot=$boot" \
        "restarts=${SLURM_RESTART_COUNT:-0}" > "$ticks.new"
    mv "$ticks.new" "$ticks"
}
begin=$EPOCHREALTIME ticks=$HOME/ticks.$SLURM_JOB_ID
for ((second = 0; second < 900; second++)); do
    tick
    [ -e "$HOME/$1" ] && break
    sleep 1
done
cat "$ticks"
