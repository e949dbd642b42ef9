#!/bin/bash
# Shows what a task of a Slurm job sees of the machine that it runs on.
if [ "$1" != task ]; then
    echo "begin=$EPOCHREALTIME"
    if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
        srun --label bash "$HOME/proof.sh" task
    else
        bash "$HOME/proof.sh" task
    fi
    status=$?
    echo "end=$EPOCHREALTIME"
    exit $status
fi

# A process by which other jobs would recognise this one, if they could see it.
(exec -a "thiao-demo-job-$SLURM_JOB_ID" bash -c 'exec {idle}<> <(:); read -r -t 60 -u "$idle"') < /dev/null > /dev/null 2>&1 &
marker=$!
# Long enough for the jobs to be there together.
sleep 3

read -r uptime _ < /proc/uptime
while read -r key value _; do
    [ "$key" = MemTotal: ] && memory=$((value / 1024))
done < /proc/meminfo
processes=0 own=0 foreign=0 seen=
for cmdline in /proc/[0-9]*/cmdline; do
    first=
    IFS= read -r -d '' first 2> /dev/null < "$cmdline"
    # Threads of the kernel have no command line.
    [ -n "$first" ] || continue
    processes=$((processes + 1))
    case $first in
        "thiao-demo-job-$SLURM_JOB_ID") own=$((own + 1)) ;;
        thiao-demo-job-*) foreign=$((foreign + 1)) ;;
    esac
    name=${first##*/}
    name=${name%% *}
    case " $seen " in *" $name "*) ;; *) seen="$seen $name" ;; esac
done
kill $marker

# In one piece, so that two tasks' findings do not mix.
printf '%s\n' "host=$(hostname)" "uptime_s=${uptime%.*}" "cpus=$(nproc)" "memory_mb=$memory" "uid=$UID" \
    "user=$(id -un)" "processes=$processes" "own=$own" "foreign=$foreign" "seen=${seen# }"
