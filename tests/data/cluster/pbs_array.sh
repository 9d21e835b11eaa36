#!/bin/bash
#PBS -N genloop-generate-tiny-100-1
#PBS -o '/shared/runs/Tiny 100%/logs/'
#PBS -j oe
#PBS -l select=1:ncpus=64:ngpus=8:mem=400gb
#PBS -l place=scatter
#PBS -l walltime=26:00:00
#PBS -q gpu
#PBS -A lab
#PBS -J 0-7
# Written by `genloop submit`; qsub takes it. Ends with 0 (done), 75 (stopped with work left) or another code (failed).
export GENLOOP_PLAN='/shared/runs/Tiny 100%/logs/submit-1'
cd '/shared/it'"'"'s here' || exit 1
module load cuda/12
export HF_HUB_OFFLINE=1

timeout --preserve-status --signal=USR2 93480 /venv/bin/python -m launch run generate '/shared/runs/Tiny 100%/logs/submit-1/config.yaml' --procs 8 --nodes 8 --node-rank "$PBS_ARRAY_INDEX"
code=$?
exit $code
