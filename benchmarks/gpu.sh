#!/usr/bin/env bash
# Runs all measurements that need a large NVIDIA GPU, in parts with a time limit that keep partial results:
#
#     benchmarks/gpu.sh check RESULTS     2 minutes: the GPU, a recorded case in float64, a step in bfloat16
#     benchmarks/gpu.sh speed RESULTS     3 minutes: steps, compared with their floors, then `rivals`
#     benchmarks/gpu.sh profile RESULTS   1 minute: the kernels of a step, compared with their floors
#     benchmarks/gpu.sh rivals RESULTS    6 minutes: steps, compared with PyTorch's
#     benchmarks/gpu.sh train RESULTS     5 minutes: AT-RWP, AT and AT-AWP at the scale `short`, one figure
#     benchmarks/gpu.sh attacks RESULTS   3 minutes: AutoAttack, compared with the official code
#     benchmarks/gpu.sh options RESULTS   5 minutes: the effect of XLA's options
#
# Needs JAX for the GPU (0.10 to 0.12) and, for rivals, torch with CUDA (2.11 or newer), but not
# tensorflow-datasets. `train` needs DATA, an npz of CIFAR-10's size (x_train, y_train, x_test, y_test).
# It trains each method for as many epochs as fit and evaluates on 2,000 test images; EPOCHS=40 selects
# the whole schedule and all test images, METHODS='*_at_rwp_*' a single method, which takes about 12
# minutes (LIMIT=900) by the step times measured on an H100, at least 5 by its floors. `attacks` needs
# AUTO_ATTACK, a checkout of fra31/auto-attack, and attacks the AT-RWP network that `train` left in
# RESULTS, or else CASES, a directory of recorded runs. PYTHON selects the interpreter, LIMIT the time
# limit of a part in seconds, and SMALL=1 a size for CPUs.
set -euo pipefail
declare -A minutes=([check]=2 [speed]=3 [profile]=1 [rivals]=6 [train]=5 [attacks]=3 [options]=5)
part=${1:-} results=${2:-}
refuse() {
  echo "benchmarks/gpu.sh: $*" >&2
  exit 2
}
[ -n "${minutes[${part:-none}]:-}" ] || refuse "PART=$part must be one of check, speed, profile, rivals, train, attacks, options"
[ -n "$results" ] || refuse "RESULTS, a directory, is missing after $part"
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
  if [ -z "${!1:-}" ] || [ ! -e "${!1}" ]; then refuse "$1=${!1:-} must name $2"; fi
}
[ "$part" = train ] && needs DATA "an npz with x_train, y_train, x_test and y_test"
[ "$part" = attacks ] && needs AUTO_ATTACK "a checkout of fra31/auto-attack"
command -v "$python" >/dev/null || refuse "PYTHON=$python is not an interpreter"
factor=1
[ -z "${SMALL:-}" ] || factor=5 # CPUs are slow even at the small size
seconds=${LIMIT:-$((60 * factor * minutes[$part]))}
[[ $seconds =~ ^[0-9]+$ ]] || refuse "LIMIT=$seconds must be an integer number of seconds"
mkdir -p "$results" 2>/dev/null && [ -w "$results" ] || refuse "RESULTS=$results must be a writable directory"
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$results/xla} PYTHONUNBUFFERED=1

if [ -z "${GPU_SH_INSIDE:-}" ]; then # run again with a time limit and a log
  export GPU_SH_INSIDE=1
  status=0
  exec 3>&1 4>&2 > >(tee "$results/$part.txt") 2>&1
  writer=$!
  PYTHON=$python timeout -k 10 "$seconds" bash benchmarks/gpu.sh "$part" "$results" &
  bounded=$!
  trap 'kill "$bounded"; wait "$bounded" || true; exit 143' TERM INT HUP
  wait "$bounded" || status=$?
  exec >&3 2>&4 3>&- 4>&-
  wait "$writer"
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "benchmarks/gpu.sh: $part was stopped after $seconds s; partial results are in $results" | tee -a "$results/$part.txt"
    status=0
  fi
  exit "$status"
fi

model=preactresnet18 wide=wrn-34-10 batch=128 large=1024 dtype=bfloat16 ks=0,10,3 rivals=float32,fast
repeats=3 lasting=1 test_images=2000 examples=256 least=4 small=()
if [ -n "${SMALL:-}" ]; then
  model=wrn-10-1 wide=wrn-10-1 batch=16 large=32 dtype=float32 ks=0,2 rivals=float32
  repeats=1 lasting=0.1 test_images=64 examples=16 least=2
  for change in model.name=wrn-10-1 attack.steps=1 evaluation.steps=1 weight_perturbation.steps=2 epoch_examples=640; do
    small+=(--override $change)
  done
fi
try() { # a failing step does not end the part
  "$@" || { failed=1 && echo "benchmarks/gpu.sh: failed: $*"; }
}
failed=0
rwp=short_cifar10_at_rwp_seed0 every=4
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
profile)
  # Without command buffers, a profile names the instruction of each kernel; they do not change its time.
  [ -z "${SMALL:-}" ] && export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_command_buffer="
  try $python -m benchmarks.kernel_times --config configs/cifar10_at_rwp.py --model $model --batch_size $batch \
    --dtype $dtype --json "$results/profile_${model}_$batch.json" --hlo "$results/profile_${model}_$batch.hlo" ;;
speed | rivals)
  if [ "$part" = speed ]; then
    step_time $model $batch "" "speed_${model}_$batch" --evaluation
    step_time $model $large "" "speed_${model}_$large"
    step_time $wide $batch "" "speed_${wide}_$batch"
  fi
  step_time $model $batch $rivals "rivals_${model}_$batch"
  step_time $model $large $rivals "rivals_${model}_$large"
  step_time $wide $batch $rivals "rivals_${wide}_$batch" ;;
train)
  data=$DATA epochs=${EPOCHS:-}
  if [ -z "$epochs" ]; then
    timing=$results/speed_${model}_$batch.json data=$results/data.npz
    [ -s "$timing" ] || ks=0,10 step_time $model $batch "" "speed_${model}_$batch" --evaluation
    $python - "$DATA" "$data" $test_images <<'PROGRAM'
import sys
import numpy as np
data = dict(np.load(sys.argv[1]))
count = int(sys.argv[3])
np.savez(sys.argv[2], **data | {"x_test": data["x_test"][:count], "y_test": data["y_test"][:count]})
PROGRAM
    epochs=$($python -m benchmarks.epochs_that_fit --step_time "$timing" --seconds $((seconds - SECONDS)) \
      --least $least --test_examples $test_images --every $every)
  fi
  echo "$epochs epochs of each method"
  short=$results/short_$epochs
  for method in ${METHODS:-'*_at_rwp_*' '*_at_seed*' '*_at_awp_*'}; do
    try $python main.py --mode reproduce --experiment fig2c --scale short --workdir "$short" --only "$method" \
      --override data.name=npz --override "data.path=$data" --override dtype=$dtype --override batch_size=$batch \
      --override evaluation.train_examples=0 --override "epochs=$epochs" ${small[@]+"${small[@]}"}
  done ;;
attacks)
  trained=$(ls -dt "$results"/short_*/runs/$rwp 2>/dev/null | head -n 1 || true)
  if [ -n "$trained" ]; then
    source=(--workdir "$trained" --examples $examples)
  else
    needs CASES "a directory of recorded runs, because train left no run in RESULTS"
    source=(--cases "$CASES" --examples $examples)
  fi
  $python -m benchmarks.autoattack --reference "$AUTO_ATTACK" "${source[@]}" --json "$results/attacks.json" ;;
options)
  $python -m benchmarks.xla_options --model $model --batch_size $batch --dtype $dtype --k "${ks##*,}" \
    --repeats $repeats --seconds $lasting --json "$results/options.json" ;;
esac
exit $failed
