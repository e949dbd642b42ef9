# Slurm names nodes of both in one list, and sets no PATH.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
list=$("$scontrol" show hostnames "$1") && ours=$("$scontrol" show hostnames "$(cat "$nodes")") || exit 1
known=$(mktemp) || exit 1
printf '%s\n' "$ours" > "$known"
for_thiao=$(printf '%s\n' "$list" | grep -xF -f "$known" | paste -sd, -)
for_site=$(printf '%s\n' "$list" | grep -vxF -f "$known" | paste -sd, -)
rm -f "$known"
status=0
# The order of ours first: it is on disk at once.
if [ -n "$for_thiao" ]; then "$thiao" "$for_thiao" || status=$?; fi
if [ -n "$for_site" ]; then "$site" "$for_site" || status=$?; fi
exit "$status"
