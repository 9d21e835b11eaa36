#!/bin/bash
#PBS -N genloop-train-tiny-100-1
#PBS -o '/shared/runs/Tiny 100%/logs/'
#PBS -j oe
#PBS -l select=2:ncpus=64:ngpus=8:mem=400gb
#PBS -l place=scatter
#PBS -l walltime=26:00:00
#PBS -q gpu
#PBS -A lab
#PBS -W depend=afterok:12.head
#PBS -l filesystems=home
# Written by `genloop submit`; qsub takes it. Ends with 0 (done), 75 (stopped with work left) or another code (failed).
export GENLOOP_PLAN='/shared/runs/Tiny 100%/logs/submit-1'
cd '/shared/it'"'"'s here' || exit 1
module load cuda/12
export HF_HUB_OFFLINE=1

if [ $# = 2 ]; then  # on one node, started below
  exec timeout --preserve-status --signal=USR2 93480 /venv/bin/python -m launch run lab.jobs.train '/shared/runs/Tiny 100%/logs/submit-1/config.yaml' --procs 8 --nodes 2 --node-rank "$1" --master "$2"
fi
mapfile -t hosts < <(sort -u "$PBS_NODEFILE")
master=${hosts[0]}:$((20000 + ${PBS_JOBID%%.*} % 10000))
for rank in "${!hosts[@]}"; do
  pbs_tmrsh "${hosts[$rank]}" /bin/bash '/shared/runs/Tiny 100%/logs/submit-1/job.sh' "$rank" "$master" &
  pids[rank]=$!
done
code=0
for pid in "${pids[@]}"; do
  wait "$pid"
  node=$?
  # a failure outweighs "work left", which outweighs 0
  if [ $node != 0 ] && { [ $node != 75 ] || [ $code = 0 ]; }; then code=$node; fi
done
attempt=${GENLOOP_ATTEMPT:-0}
if [ $code = 75 ] && [ "$attempt" -lt 3 ]; then
  timeout 30 qsub -v "GENLOOP_ATTEMPT=$((attempt + 1))" '/shared/runs/Tiny 100%/logs/submit-1/job.sh'
fi
exit $code
