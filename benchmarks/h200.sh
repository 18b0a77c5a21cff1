#!/usr/bin/env bash
# Everything that wants a large NVIDIA GPU, in three parts of at most ten minutes each:
#
#     benchmarks/h200.sh speed RESULTS      steps of PreActResNet-18 and WRN-34-10 beside PyTorch's
#     benchmarks/h200.sh train RESULTS      short AT, AT-AWP and AT-RWP runs, the projection, a profile
#     benchmarks/h200.sh attacks RESULTS    AutoAttack, and parity with the authors' checkout, on the GPU
#
# Needs jax[cuda13], torch with CUDA, and in `train` DATA=cifar10.npz (x_train, y_train, x_test, y_test); in
# `attacks` CASES, AUTO_ATTACK (fra31/auto-attack) and REFERENCE (the authors' repository). SMALL=1 does
# `speed` and `train` at a size for CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."
part=$1 results=$2
mkdir -p "$results"
python=${PYTHON:-python}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$results/xla}

models="preactresnet18:128,1024 wrn-34-10:128,512"
dtype=bfloat16 epochs=8 rivals=float32,fast size=() repeats=5
if [ -n "${SMALL:-}" ]; then
  models="wrn-10-1:16" dtype=float32 epochs=4 rivals=float32 repeats=1
  size=(--config.model.name=wrn-10-1 --config.attack.steps=1 --config.evaluation.steps=1)
  size+=(--config.weight_perturbation.steps=2 --config.epoch_examples=1280 --config.evaluation.train_examples=0)
fi

case $part in
speed)
  for case in $models; do
    $python -m benchmarks.step_time --config configs/cifar10_at_rwp.py --model "${case%:*}" --dtype $dtype \
      --batch_sizes "${case#*:}" --rivals $rivals --repeats $repeats --json "$results/step_time_${case%:*}.json"
  done
  $python -m benchmarks.saving --model "${models%%:*}" ;;
train)
  for method in at at_awp at_rwp; do
    profile=()
    [ $method = at_rwp ] && profile=(--profile "$results/profile")
    $python main.py --config configs/cifar10_$method.py --workdir "$results/cifar10_$method" "${profile[@]}" \
      --config.data.name=npz --config.data.path="$DATA" --config.dtype=$dtype --config.epochs=$epochs "${size[@]}"
  done
  $python main.py --mode report --workdir "$results/report" \
    --workdirs "$results/cifar10_at,$results/cifar10_at_awp,$results/cifar10_at_rwp"
  model=${models%%:*} batch=${models#*:}
  $python -m benchmarks.schedule --step_time "$results/step_time_$model.json" --run "$results/cifar10_at_rwp" \
    --model "$model" --batch_size "${batch%%[, ]*}" ;;
attacks)
  $python -m benchmarks.autoattack --reference "$AUTO_ATTACK" --cases "$CASES"
  $python -m rwp_jax.parity --reference "$REFERENCE" --device ${DEVICE:-cuda} --output "$results/parity.md" ;;
*)
  echo "benchmarks/h200.sh: the first argument must be speed, train or attacks" >&2
  exit 2 ;;
esac
