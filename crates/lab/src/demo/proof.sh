#!/bin/bash
# Shows what a task of a Slurm job sees of the machine that it runs on; stays for $1 seconds, and with a second
# word until all jobs of the demo that are to be there together are there, a minute at most.
if [ "$1" != task ]; then
    echo "begin=$EPOCHREALTIME"
    if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
        srun --label bash "$HOME/proof.sh" task "$@"
    else
        bash "$HOME/proof.sh" task "$@"
    fi
    status=$?
    echo "end=$EPOCHREALTIME"
    exit $status
fi

# What others left where everybody may write; the lab's own folder leads to the home folder.
left=
for file in /tmp/* /var/tmp/* /dev/shm/*; do
    case $HOME/ in "$file"/*) continue ;; esac
    [ -e "$file" ] && left="$left ${file##*/}"
done
: > "/tmp/left-by-job-$SLURM_JOB_ID"

# A process by which other jobs would recognise this one, if they could see it.
(exec -a "thiao-demo-job-$SLURM_JOB_ID" bash -c 'exec {idle}<> <(:); read -r -t 60 -u "$idle"') < /dev/null > /dev/null 2>&1 &
marker=$!
# Long enough for the jobs to be there together, on most machines.
sleep "${2:-3}"
if [ -n "$3" ]; then
    for ((second = 0; second < 60; second++)); do
        [ -e "$HOME/$3" ] && break
        sleep 1
    done
    # The last one has begun a moment ago.
    sleep 2
fi

read -r uptime _ < /proc/uptime
read -r boot < /proc/sys/kernel/random/boot_id
while read -r key value _; do
    case $key in
        MemTotal:) memory=$((value / 1024)) ;;
        MemAvailable:) available=$((value / 1024)) ;;
    esac
done < /proc/meminfo
processes=0 own=0 foreign=0 others=0 seen=
for process in /proc/[0-9]*; do
    first=
    IFS= read -r -d '' first 2> /dev/null < "$process/cmdline"
    # Threads of the kernel have no command line.
    [ -n "$first" ] || continue
    processes=$((processes + 1))
    case $first in
        "thiao-demo-job-$SLURM_JOB_ID") own=$((own + 1)) ;;
        thiao-demo-job-*) foreign=$((foreign + 1)) ;;
    esac
    while read -r key uid _; do
        # People's uids; those below are the system's.
        [ "$key" = Uid: ] && [ "$uid" -ge 1000 ] && [ "$uid" -ne "$UID" ] && others=$((others + 1))
    done 2> /dev/null < "$process/status"
    name=${first##*/}
    name=${name%% *}
    case " $seen " in *" $name "*) ;; *) seen="$seen $name" ;; esac
done
kill $marker

# In one piece, so that two tasks' findings do not mix.
printf '%s\n' "host=$(hostname)" "boot=$boot" "uptime_s=${uptime%.*}" "cpus=$(nproc)" "memory_mb=$memory" \
    "available_mb=$available" "uid=$UID" "user=$(id -un)" "left=${left# }" "processes=$processes" "own=$own" \
    "foreign=$foreign" "others=$others" "seen=${seen# }"
