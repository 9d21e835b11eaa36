#!/bin/bash
#SBATCH --job-name=genloop-generate-tiny-100-1
#SBATCH --output='/shared/runs/Tiny 100%%/logs/slurm-%j.log'
#SBATCH --open-mode=append
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
# Written by `genloop submit`. Ends with 0 (done), 75 (stopped with work left, and not requeued) or another code (failed).
export GENLOOP_PLAN='/shared/runs/Tiny 100%/logs/submit-1'
attempt=${SLURM_RESTART_COUNT:-0}
key=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
key=${key:-$SLURM_JOB_ID}
export GENLOOP_LEFT=$GENLOOP_PLAN/$key.left
stop= pid= again=1
trap 'stop=1 again=1; [ -z "$pid" ] || kill -USR2 "$pid"' USR1  # the time limit is near
trap 'again=1' TERM                                             # Slurm tells the steps itself
echo "== job $key, attempt $attempt on ${SLURM_JOB_NODELIST:-$HOSTNAME} at $(date -u +%FT%TZ)"
rm -f "$GENLOOP_LEFT".*
cd '/shared/it'"'"'s here' || exit 1
module load cuda/12
export HF_HUB_OFFLINE=1

node() {  # On each node. "Work left" is noted in a file: as an exit code it would make srun end the other nodes.
  trap : USR1 USR2 TERM
  /venv/bin/python -m launch run generate '/shared/runs/Tiny 100%/logs/submit-1/config.yaml' --procs 1
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
echo $code > "$GENLOOP_PLAN/$key.$attempt.exit"
echo "== job $key, attempt $attempt: exit code $code"
if [ $code = 75 ] && [ "$attempt" -lt 3 ]; then
  case $(timeout 30 scontrol show job "$key" -o) in  # also while it is preempted; not once it is cancelled
    *JobState=RUNNING*) timeout 30 scontrol requeue "$key" ;;
  esac
fi
exit $code
