#!/bin/bash
{% for option in options %}
#PBS {{ option }}
{% endfor %}
# Written by `genloop submit`; qsub takes it. Ends with 0 (done), 75 (stopped with work left) or another code (failed).
export {{ PLAN }}={{ it.plan | quote }}
{% for key, value in it.variables.items() %}
export {{ key }}={{ value | quote }}
{% endfor %}
cd {{ it.folder | quote }} || exit 1
{% for line in cluster.setup %}
{{ line }}
{% endfor %}

{% if it.together and it.nodes > 1 %}
if [ $# = 2 ]; then  # on one node, started below
  exec timeout --preserve-status --signal=USR2 {{ cluster.time - cluster.lead }} {{ it.command('"$1"', '"$2"') }}
fi
mapfile -t hosts < <(sort -u "$PBS_NODEFILE")
master=${hosts[0]}:$((20000 + ${PBS_JOBID%%.*} % 10000))
for rank in "${!hosts[@]}"; do
  pbs_tmrsh "${hosts[$rank]}" /bin/bash {{ it.script | quote }} "$rank" "$master" &
  pids[rank]=$!
done
code=0
for pid in "${pids[@]}"; do
  wait "$pid"
  node=$?
  # a failure outweighs "work left", which outweighs 0
  if [ $node != 0 ] && { [ $node != 75 ] || [ $code = 0 ]; }; then code=$node; fi
done
{% else %}
timeout --preserve-status --signal=USR2 {{ cluster.time - cluster.lead }} {{ it.command('"$PBS_ARRAY_INDEX"', '') }}
code=$?
{% endif %}
{% if not it.is_array %}
attempt=${GENLOOP_ATTEMPT:-0}
if [ $code = 75 ] && [ "$attempt" -lt {{ cluster.requeue_limit }} ]; then
  timeout 30 qsub -v "GENLOOP_ATTEMPT=$((attempt + 1))" {{ it.script | quote }}
fi
{% endif %}
exit $code
