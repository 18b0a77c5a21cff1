#!/usr/bin/env bash
# Everything that wants a large NVIDIA GPU, in parts that end by themselves and keep what they have measured:
#
#     benchmarks/gpu.sh check RESULTS     1 minute: the GPU, a recorded case in float64, a step in bfloat16
#     benchmarks/gpu.sh speed RESULTS     3 minutes: steps beside PyTorch's and beside their floors
#     benchmarks/gpu.sh train RESULTS     5 minutes: AT, AT-AWP and AT-RWP in as many epochs as fit, one picture
#     benchmarks/gpu.sh attacks RESULTS   3 minutes: AutoAttack beside the official code
#     benchmarks/gpu.sh options RESULTS   5 minutes: what XLA's options change
#
# Needs JAX for the GPU (0.10 to 0.12) and, for rivals, torch with CUDA (2.11 or newer); no
# tensorflow-datasets. `train` needs DATA, an npz of CIFAR-10's size (x_train, y_train, x_test, y_test);
# `attacks` needs AUTO_ATTACK, a checkout of fra31/auto-attack, and attacks RESULTS/cifar10_at_rwp, which
# `train` leaves, or CASES, a directory of recorded runs. PYTHON chooses the interpreter, LIMIT the seconds of
# a part, and SMALL=1 a size for CPUs.
set -euo pipefail
declare -A minutes=([check]=1 [speed]=3 [train]=5 [attacks]=3 [options]=5)
part=${1:-} results=${2:-}
if [ -z "${minutes[${part:-none}]:-}" ] || [ -z "$results" ]; then
  echo "usage: benchmarks/gpu.sh check|speed|train|attacks|options RESULTS" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
absolute() { case $1 in "" | /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
results=$(absolute "$results")
for variable in DATA CASES AUTO_ATTACK; do
  [ -z "${!variable:-}" ] || export "$variable=$(absolute "${!variable}")"
done
python=${PYTHON:-python}
case $python in */*) python=$(absolute "$python") ;; esac
cd "$here"
needs() {
  if [ -z "${!1:-}" ] || [ ! -e "${!1}" ]; then
    echo "benchmarks/gpu.sh: $1=${!1:-} must name $2" >&2
    exit 2
  fi
}
[ "$part" = train ] && needs DATA "an npz with x_train, y_train, x_test and y_test"
[ "$part" = attacks ] && needs AUTO_ATTACK "a checkout of fra31/auto-attack"
command -v "$python" >/dev/null || { echo "benchmarks/gpu.sh: PYTHON=$python is no interpreter" >&2 && exit 2; }
mkdir -p "$results" || exit 2
factor=1
[ -z "${SMALL:-}" ] || factor=5 # CPUs are slow at the small size too
seconds=${LIMIT:-$((60 * factor * minutes[$part]))}
[[ $seconds =~ ^[0-9]+$ ]] || { echo "benchmarks/gpu.sh: LIMIT=$seconds must be whole seconds" >&2 && exit 2; }
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$results/xla} PYTHONUNBUFFERED=1

if [ -z "${GPU_SH_INSIDE:-}" ]; then # once more, bounded and written down
  export GPU_SH_INSIDE=1
  status=0
  PYTHON=$python timeout -k 10 "$seconds" bash benchmarks/gpu.sh "$part" "$results" 2>&1 | tee "$results/$part.txt" || status=$?
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "benchmarks/gpu.sh: $part was stopped after $seconds s; $results has what it measured" | tee -a "$results/$part.txt"
    status=0
  fi
  exit "$status"
fi

model=preactresnet18 wide=wrn-34-10 batch=128 large=1024 dtype=bfloat16 ks=0,10,3 rivals=float32,fast
repeats=3 lasting=1 test_images=2000 examples=256 least=4 small=()
if [ -n "${SMALL:-}" ]; then
  model=wrn-10-1 wide=wrn-10-1 batch=16 large=32 dtype=float32 ks=0,2 rivals=float32
  repeats=1 lasting=0.1 test_images=64 examples=16 least=2
  small=(--config.model.name=wrn-10-1 --config.attack.steps=1 --config.evaluation.steps=1)
  small+=(--config.weight_perturbation.steps=2 --config.epoch_examples=640)
fi
try() { # a step that fails does not end the part
  "$@" || { failed=1 && echo "benchmarks/gpu.sh: failed: $*"; }
}
failed=0
step_time() { # MODEL BATCH RIVALS NAME [ARGUMENT ...]
  try $python -m benchmarks.step_time --config configs/cifar10_at_rwp.py --model "$1" --batch_sizes "$2" --dtype $dtype \
    --k $ks --rivals "$3" --repeats $repeats --seconds $lasting --json "$results/$4.json" "${@:5}"
}

case $part in
check)
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv 2>/dev/null || echo "no nvidia-smi"
  $python -c 'import jax; print(jax.__version__, jax.default_backend(), [d.device_kind for d in jax.devices()])'
  try $python -m rwp_jax.parity --cases tests/fixtures/parity --only step_at_rwp_wrn-10-1_l_inf
  ks=0,2 step_time wrn-10-1 $batch "" check ;;
speed) # most valuable first: ours, then the rivals, then the larger sizes
  step_time $model $batch "" "speed_${model}_$batch" --evaluation
  step_time $model $large "" "speed_${model}_$large"
  step_time $wide $batch "" "speed_${wide}_$batch"
  step_time $model $batch $rivals "rivals_${model}_$batch"
  step_time $model $large $rivals "rivals_${model}_$large"
  step_time $wide $batch $rivals "rivals_${wide}_$batch" ;;
train)
  timing=$results/speed_${model}_$batch.json
  [ -s "$timing" ] || ks=0,10 step_time $model $batch "" "speed_${model}_$batch" --evaluation
  data=$results/data.npz
  $python - "$DATA" "$data" $test_images <<'PROGRAM'
import sys
import numpy as np
data = dict(np.load(sys.argv[1]))
count = int(sys.argv[3])
np.savez(sys.argv[2], **data | {"x_test": data["x_test"][:count], "y_test": data["y_test"][:count]})
PROGRAM
  epochs=$($python -m benchmarks.epochs_that_fit --step_time "$timing" --seconds $((seconds - SECONDS)) --least $least \
    --test_examples $test_images)
  echo "$epochs epochs of each method, evaluated on $test_images test images"
  for method in at_rwp at at_awp; do
    try $python main.py --config configs/cifar10_$method.py --workdir "$results/cifar10_$method" \
      --config.data.name=npz --config.data.path="$data" --config.dtype=$dtype --config.batch_size=$batch \
      --config.evaluation.train_examples=0 "--config.epochs=$epochs" ${small[@]+"${small[@]}"}
    runs=${runs:+$runs,}$results/cifar10_$method
    try $python main.py --mode report --workdir "$results/report" --workdirs "$runs"
  done ;;
attacks)
  if [ -d "$results/cifar10_at_rwp" ]; then
    source=(--workdir "$results/cifar10_at_rwp" --examples $examples)
  else
    needs CASES "a directory of recorded runs, where train has left no run in RESULTS"
    source=(--cases "$CASES" --examples $examples)
  fi
  $python -m benchmarks.autoattack --reference "$AUTO_ATTACK" "${source[@]}" --json "$results/attacks.json" ;;
options)
  $python -m benchmarks.xla_options --model $model --batch_size $batch --dtype $dtype --k "${ks##*,}" \
    --repeats $repeats --seconds $lasting --json "$results/options.json" ;;
esac
exit $failed
