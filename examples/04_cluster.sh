#!/usr/bin/env bash
# Four processes by hand: a chief, two workers and a parameter server, each told by TF_CONFIG who it is.
#
#   bash examples/04_cluster.sh                                  trains the main job for 200 steps
#   bash examples/04_cluster.sh dualflat train --max-steps 50    any command, the same in every process
#
# On four machines: one of these lines on each, real host names, and folders that all of them see for
# --log-dir and --model-dir. `dualflat launch --workers 3 --ps 1 -- …` does all this on one machine.
set -u
[ $# -gt 0 ] || set -- dualflat train --max-steps 200
cluster='{"chief": ["127.0.0.1:47310"], "worker": ["127.0.0.1:47311", "127.0.0.1:47312"], "ps": ["127.0.0.1:47313"]}'

TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": 0}}" "$@" & first=$!
TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": 1}}" "$@" & second=$!
TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"ps\", \"index\": 0}}" "$@" & third=$!
TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"chief\", \"index\": 0}}" "$@" & chief=$!

trap 'kill "$first" "$second" "$third" "$chief" 2>/dev/null' INT TERM
status=0
for process in "$chief" "$first" "$second" "$third"; do wait "$process" || status=$?; done
exit $status
