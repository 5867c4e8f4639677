#!/usr/bin/env bash
# accelerate 1.15.0: accelerate launch --cpu --num_processes 2 starts one process.
#
# On CPUs the number of processes counts only together with --mpirun_hostfile; without it the program runs
# once, as a training of one process (DistributedType.NO), with no error and exit status 0. One would guess
# two, as --num_processes says. Two processes on CPUs without MPI: --multi_gpu, whose launcher is torch's,
# with ACCELERATE_USE_CPU=true in the environment.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0 numpy 2> /dev/null
cat > "$dir/f.py" <<'P'
import accelerate
found = accelerate.Accelerator()
print(f"accelerate {accelerate.__version__}: {found.num_processes} process(es), {found.distributed_type}")
P
launch() { "$dir/v/bin/accelerate" launch "$@" --num_processes 2 --num_machines 1 --mixed_precision no \
  --dynamo_backend no "$dir/f.py" 2> /dev/null; }
export OMP_NUM_THREADS=1
one=$(launch --cpu)
two=$(ACCELERATE_USE_CPU=true launch --multi_gpu)
echo "--cpu: $one"; echo "--multi_gpu: $two"
[ "$(wc -l <<< "$one")" = 1 ] && grep -q ": 1 process(es), DistributedType.NO" <<< "$one" && \
  [ "$(grep -c ": 2 process(es), DistributedType.MULTI_CPU" <<< "$two")" = 2 ]
# seen: --cpu: accelerate 1.15.0: 1 process(es), DistributedType.NO
#       --multi_gpu: accelerate 1.15.0: 2 process(es), DistributedType.MULTI_CPU (twice)
