#!/bin/bash
{% for option in options %}
#SBATCH {{ option }}
{% endfor %}
# Written by `genloop submit`. Ends with 0 (done), 75 (stopped with work left, and not requeued) or another code (failed).
export {{ PLAN }}={{ it.plan | quote }}
{% for key, value in it.variables.items() %}
export {{ key }}={{ value | quote }}
{% endfor %}
attempt=${SLURM_RESTART_COUNT:-0}
key=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
key=${key:-$SLURM_JOB_ID}
export GENLOOP_LEFT=${{ PLAN }}/$key.left
stop= pid= again=1
trap 'stop=1 again=1; [ -z "$pid" ] || kill -USR2 "$pid"' USR1  # the time limit is near
trap 'again=1' TERM                                             # Slurm tells the steps itself
echo "== job $key, attempt $attempt on ${SLURM_JOB_NODELIST:-$HOSTNAME} at $(date -u +%FT%TZ)"
rm -f "$GENLOOP_LEFT".*
cd {{ it.folder | quote }} || exit 1
{% for line in cluster.setup %}
{{ line }}
{% endfor %}
{% if cluster.cpus %}
export SRUN_CPUS_PER_TASK={{ cluster.cpus }}
{% endif %}
{% if it.together and it.nodes > 1 %}
# The first node, by the address that Slurm itself uses: its name need not resolve.
head=$(timeout 30 scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(timeout 30 scontrol show node "$head" -o | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
export GENLOOP_MASTER=${address:-$head}:$((20000 + SLURM_JOB_ID % 10000))
{% endif %}

node() {  # On each node. "Work left" is noted in a file: as an exit code it would make srun end the other nodes.
  trap : USR1 USR2 TERM
  {{ it.command('"$SLURM_NODEID"' if it.together else '"$SLURM_ARRAY_TASK_ID"', '"$GENLOOP_MASTER"') }}
  code=$?
  case $code in
    75|140|143) : > "$GENLOOP_LEFT.$SLURM_NODEID"; code=0 ;;  # 140, 143: told to stop before it listened
  esac
  exit $code
}
export -f node

srun --kill-on-bad-exit=1 bash -c node &
pid=$!
[ -z "$stop" ] || kill -USR2 "$pid"
while [ $again = 1 ]; do  # a signal ends `wait` early
  again=0
  wait "$pid"
  code=$?
done
for file in "$GENLOOP_LEFT".*; do
  [ $code != 0 ] || [ ! -e "$file" ] || code=75
done
[ -z "$stop" ] || [ $code != 140 ] || code=75  # srun itself did not listen yet
echo $code > "${{ PLAN }}/$key.$attempt.exit"
echo "== job $key, attempt $attempt: exit code $code"
if [ $code = 75 ] && [ "$attempt" -lt {{ cluster.requeue_limit }} ]; then
  case $(timeout 30 scontrol show job "$key" -o) in  # also while it is preempted; not once it is cancelled
    *JobState=RUNNING*) timeout 30 scontrol requeue "$key" ;;
  esac
fi
exit $code
