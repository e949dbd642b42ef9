# What the site does before a job comes first; if it fails, Slurm puts the job back.
"$site" "$@" || exit
exec "$thiao" "$@"
