#!/bin/sh
# Stands in for one of Slurm's programs: runs the text beside it that has the same name.
. "$0.sh"
