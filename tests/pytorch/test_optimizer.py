"""SGD with its schedules, clipping and momentum cycles equals PyTorch's own over a whole training; so do
label smoothing and the average of the weights."""

import jax
import numpy as np
import optax
import pytest

from rwp_jax.losses import cross_entropy
from rwp_jax.training.optimizer import make_sgd
from rwp_jax.training.schedules import make_schedule, momentum_schedule
from rwp_jax.training.weight_averaging import Average, Averaging, averaged

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler

EPOCHS, STEPS = 5, 4


def cosine_warmup(optimizer, warmup):
    rising, total = int(warmup * EPOCHS * STEPS), EPOCHS * STEPS
    linear = schedulers.LinearLR(optimizer, start_factor=1 / rising, total_iters=rising)
    cosine = schedulers.CosineAnnealingLR(optimizer, total - rising)
    return schedulers.SequentialLR(optimizer, [linear, cosine], [rising])


def one_cycle(total):
    def make(optimizer, warmup, **momenta):
        cycle = momenta or {"cycle_momentum": False}
        return schedulers.OneCycleLR(optimizer, 0.2, total, pct_start=warmup, **cycle)

    return make


@pytest.mark.parametrize("warmup", [0.15, 0.3, 0.5])
@pytest.mark.parametrize(
    ("name", "reference", "every", "cycle"),
    [
        ("one_cycle", one_cycle(EPOCHS * STEPS), 1, ()),
        ("one_cycle", one_cycle(EPOCHS * STEPS), 1, (0.85, 0.95)),
        ("one_cycle_epoch", one_cycle(EPOCHS), STEPS, ()),
        ("one_cycle_epoch", one_cycle(EPOCHS), STEPS, (0.85, 0.95)),
        ("one_cycle_epoch", one_cycle(EPOCHS), STEPS, (0.5, 0.9)),
        ("cosine_warmup", cosine_warmup, 1, ()),
    ],
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_pytorch(name, reference, every, cycle, warmup, nesterov):
    rng = np.random.default_rng(0)
    tensors = {"bn/scale": rng.standard_normal(3), "kernel": rng.standard_normal((4, 2))}
    theirs = {name: torch.nn.Parameter(torch.from_numpy(a.copy())) for name, a in tensors.items()}
    groups = [
        {"params": [theirs["kernel"]]},
        {"params": [theirs["bn/scale"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, 0.2, 0.9, weight_decay=5e-2, nesterov=nesterov)
    momenta = {"base_momentum": cycle[0], "max_momentum": cycle[1]} if cycle else {}
    scheduler = reference(optimizer, warmup, **momenta)
    schedule = make_schedule(name, 0.2, EPOCHS, STEPS, "float64", warmup)
    momentum = momentum_schedule(name, cycle, EPOCHS, STEPS, warmup) if cycle else 0.9
    ours = make_sgd(schedule, momentum, 5e-2, nesterov, 1.5, "(^|/)bn")
    params, state = tensors, ours.init(tensors)
    for step in range(EPOCHS * STEPS):
        gradient = {name: rng.standard_normal(a.shape) for name, a in params.items()}
        for key, parameter in theirs.items():
            parameter.grad = torch.from_numpy(gradient[key].copy())
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.5)
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < EPOCHS * STEPS:
            scheduler.step()
        updates, state = ours.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for key, parameter in theirs.items():
            np.testing.assert_allclose(
                params[key], parameter.detach().numpy(), rtol=1e-10, atol=1e-12
            )


def test_a_training_equals_pytorch():
    """Label smoothing, OneCycle with its momentum cycle, Nesterov and the average, over 20 steps."""
    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((20, 16, 6)), rng.integers(0, 5, (20, 16))
    weights = rng.standard_normal((6, 5))
    parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = torch.optim.SGD([parameter], 0.2, 0.9, weight_decay=5e-4, nesterov=True)
    scheduler = one_cycle(20)(optimizer, 0.3, base_momentum=0.85, max_momentum=0.95)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    mean = torch.optim.swa_utils.AveragedModel(
        torch.nn.ParameterList([parameter]),
        # PyTorch copies the weights of the first update, and counts the next from 1.
        avg_fn=lambda old, new, t: new + min(0.995, t.item() / (9 + t.item())) * (old - new),
    )

    schedule = make_schedule("one_cycle", 0.2, EPOCHS, STEPS, "float64", 0.3)
    momentum = momentum_schedule("one_cycle", (0.85, 0.95), EPOCHS, STEPS, 0.3)
    ours = make_sgd(schedule, momentum, 5e-4, True, 0.0, "")
    loss = lambda w, x, y: cross_entropy(x @ w, y, smoothing=0.1).mean()
    params, state, average = weights, ours.init(weights), Average(weights, {})
    for step, (x, y) in enumerate(zip(images, labels, strict=True)):
        optimizer.zero_grad()
        theirs = criterion(torch.from_numpy(x) @ parameter, torch.from_numpy(y))
        theirs.backward()
        optimizer.step()
        if step < 19:
            scheduler.step()
        if step >= 4:
            mean.update_parameters(torch.nn.ParameterList([parameter]))
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        updates, state = ours.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        average = averaged(average, params, {}, Averaging(0.995, 5), np.int64(step))
        np.testing.assert_allclose(value, theirs.item(), rtol=1e-10)
        np.testing.assert_allclose(params, parameter.detach().numpy(), rtol=1e-10)
        if step >= 4:
            expected = mean.module[0].detach().numpy()
            np.testing.assert_allclose(average.params, expected, rtol=1e-10)
