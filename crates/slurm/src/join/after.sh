# The order of ours is on disk at once, whatever the site's program does then.
"$thiao" "$@"
status=$?
"$site" "$@" || status=$?
exit "$status"
