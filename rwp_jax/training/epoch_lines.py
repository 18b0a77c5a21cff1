"""The lines that training prints after an epoch."""

import math
from collections.abc import Sequence


def epoch_line(epoch: int, config, accuracy: str, train: dict, test: dict, seconds: float) -> str:
    """Returns the line printed after an epoch; `accuracy` is a key of `train`, `test` may be empty."""
    minutes, rest = divmod(math.floor(seconds), 60)
    tested = ""
    if test:
        tested = f"test natural {test['natural_accuracy']:6.2%}  "
        tested += f"PGD-{config.evaluation.steps} {test['pgd_accuracy']:6.2%}  |  "
    return (
        f"epoch {epoch + 1:{len(str(config.epochs))}}/{config.epochs}  "
        f"loss {train['loss']:.3f}  {accuracy.removesuffix('_accuracy')} {train[accuracy]:6.2%}  |  "
        f"{tested}gate {train['gate_open']:.1f}/{config.batch_size}  "
        f"k {train['perturbation_steps']:.1f}  "
        f"|v|/|w| {train['perturbation_norm']:.4f}  lr {train['learning_rate']:.4g}  "
        f"{minutes}:{rest:02}"
    )


def start_remark(config) -> str:
    """Returns a remark if the weight perturbation would start after the last epoch, otherwise ""."""
    perturbation = config.weight_perturbation
    if perturbation.name == "none" or perturbation.start_epoch < config.epochs:
        return ""
    return (
        f"config.weight_perturbation.start_epoch={perturbation.start_epoch}: none of the "
        f"{config.epochs} epochs perturbs the weights"
    )


def gate_remark(config, records: Sequence[dict]) -> str:
    """Returns a remark if the gate was shut, or open on all examples, for a whole epoch for the first time.

    Args:
      config: config of the run.
      records: content of metrics.jsonl, up to the newest epoch.

    Returns:
      The remark; "" in all other epochs, and if no gate depends on the loss.
    """
    perturbation = config.weight_perturbation
    limits = []
    if perturbation.name == "rwp":
        limits.append(f"below c_min={perturbation.c_min:g}")
    if perturbation.name != "none" and (
        perturbation.lsc_low > 0 or perturbation.lsc_high < math.inf
    ):
        limits.append(f"in [{perturbation.lsc_low:g}, {perturbation.lsc_high:g})")
    shares = [
        record["gate_open"] / config.batch_size
        for record in records
        if record["split"] == "train" and record["epoch"] >= perturbation.start_epoch
    ]
    if not limits or not shares or shares[-1] not in (0, 1) or shares.count(shares[-1]) > 1:
        return ""
    within, epoch = " and ".join(limits), records[-1]["epoch"] + 1
    if shares[-1]:
        return f"epoch {epoch}: all losses are {within}, so that every example perturbs the weights"
    return f"epoch {epoch}: no loss is {within}, so that the weights are not perturbed"
