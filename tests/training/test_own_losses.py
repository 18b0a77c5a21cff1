"""Weight ascent on user-defined losses: without aux, with any aux, with masks, and invalid arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwp_jax.errors import InputError
from rwp_jax.training.weight_ascent import perturb_and_differentiate
from rwp_jax.training.weight_perturbation import make_weight_perturbation, perturbed_norm
from tests.training.test_weight_ascent import FEATURES, PARAMS, gradient, losses, norm

RWP = make_weight_perturbation("rwp", 0.1, 2, c_min=np.inf)


def test_losses_without_aux_and_with_any():
    whole = perturb_and_differentiate(losses, PARAMS, RWP)
    alone = perturb_and_differentiate(lambda p: losses(p)[0], PARAMS, RWP)
    any_aux = perturb_and_differentiate(lambda p: (losses(p)[0], {"x": p["b"]}), PARAMS, RWP)
    assert alone.aux is None and any_aux.aux["x"].shape == (2,)
    for name in PARAMS:
        np.testing.assert_allclose(alone.v[name], whole.v[name], rtol=1e-12)
        np.testing.assert_allclose(any_aux.gradient[name], whole.gradient[name], rtol=1e-12)


@pytest.mark.parametrize("name", ["awp", "rwp"])
@pytest.mark.parametrize("given", ["tree", "function"])
def test_a_mask_says_what_is_perturbed_and_what_enters_the_norms(name, given):
    tree = {"w": False, "u": True, "b": True}
    mask = tree if given == "tree" else lambda params: {n: n in "ub" for n in params}
    perturbation = make_weight_perturbation(name, 0.1, 1, mask=mask)
    v = perturb_and_differentiate(losses, PARAMS, perturbation).v
    ones = gradient(PARAMS, np.ones(12))
    length = lambda tree, names: np.sqrt(sum((np.asarray(tree[n]) ** 2).sum() for n in names))
    assert not v["w"].any()
    for tensor in "ub":
        over = tensor if name == "awp" else "ub"
        expected = 0.1 * length(PARAMS, over) / length(ones, over) * ones[tensor]
        np.testing.assert_allclose(v[tensor], expected, rtol=1e-12)
    np.testing.assert_allclose(
        perturbed_norm(PARAMS, perturbation.mask), length(PARAMS, "ub"), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("per_example", "settings", "message"),
    [
        (lambda p: losses(p)[0].mean(), {}, r"per_example= gives float64\[\], must give"),
        (lambda p: losses(p)[0].astype(int), {}, r"per_example= gives int64\[12\], must give"),
        (lambda p: (losses(p)[0], 1, 2), {}, "per_example= returns 3 values"),
        (losses, {"gate_loss": lambda loss, aux: loss[:3]}, "gate_loss= gives 3 losses for 12"),
        (lambda p: p["b"], {"params": {"b": np.ones(2)}}, "mask= perturbs no tensor of params"),
        (losses, {"mask": {"w": True}}, "mask= must have the structure of params"),
        (
            losses,
            {"mask": {"w": "no", "u": True, "b": True}},
            "mask= has 'no' for w, must have True or False",
        ),
        (lambda p: losses(p)[0][:0], {}, "per_example= gives no loss: the batch is empty"),
        (3, {}, "per_example=3 must be a function"),
        (losses, {"gate_loss": 3}, "gate_loss=3 must be a function"),
        (losses, {"max_steps": 1.5}, "max_steps=1.5 must be an integer of at least 0"),
        (losses, {"max_steps": -1}, "max_steps=-1 must be an integer of at least 0"),
        (
            losses,
            {"gradient_dtype": "int8"},
            "gradient_dtype='int8' must be '' .no conversion. or 'bfloat16'",
        ),
        (
            losses,
            {"params": {"w": "x"}},
            "params= holds a str in w, must hold floating-point arrays",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(per_example, settings, message):
    perturbation = make_weight_perturbation(
        "rwp", 0.1, 1, **{k: v for k, v in settings.items() if k == "mask"}
    )
    keywords = {k: v for k, v in settings.items() if k not in ("mask", "params")}
    with pytest.raises(InputError, match=message):
        perturb_and_differentiate(
            per_example, settings.get("params", PARAMS), perturbation, **keywords
        )


def split(axis_name, check_vma):
    """Returns the gradient computed by two devices, each with half of the examples."""
    spec = jax.sharding.PartitionSpec("batch")

    def on_device(params, x):
        per_example = lambda p: ((x @ p["w"]) ** 2).sum(-1)
        return perturb_and_differentiate(per_example, params, RWP, axis_name=axis_name).gradient[
            "w"
        ]

    devices = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Auto,))
    specs = {
        "in_specs": (jax.sharding.PartitionSpec(), spec),
        "out_specs": jax.sharding.PartitionSpec(),
    }
    mapped = jax.shard_map(on_device, mesh=devices, check_vma=check_vma, **specs)
    return mapped({"w": PARAMS["w"]}, FEATURES)


def test_shard_map_sums_gradients_once():
    per_example = lambda p: ((FEATURES @ p["w"]) ** 2).sum(-1)
    whole = perturb_and_differentiate(per_example, {"w": PARAMS["w"]}, RWP).gradient["w"]
    np.testing.assert_allclose(split("batch", check_vma=False), whole, rtol=1e-12)
    for axis_name in ("batch", None):
        with pytest.raises(InputError, match="check_vma=False"):
            split(axis_name, check_vma=True)


def test_parameters_of_several_kinds():
    """Norms are computed in float32 or wider; v has each tensor's dtype."""
    params = {
        "w": PARAMS["w"].astype(np.float16),
        "u": jnp.asarray(PARAMS["u"], jnp.bfloat16),
        "b": np.ones(2),
    }
    ours = jax.jit(lambda p: perturb_and_differentiate(losses, p, RWP))(params)
    assert [ours.v[n].dtype for n in "wub"] == ["float16", "bfloat16", "float64"]
    assert norm({n: np.asarray(v, float) for n, v in ours.v.items()}) == pytest.approx(
        0.1 * norm({n: np.asarray(p, float) for n, p in params.items()}), rel=2e-2
    )
    with pytest.raises(InputError, match="params= holds int64 in count, must hold floating-point"):
        perturb_and_differentiate(losses, PARAMS | {"count": np.arange(3)}, RWP)


def test_a_batch_sharded_over_an_explicit_axis():
    """With explicit shardings (in types), the loop's values keep the sharding of the losses."""
    mesh = jax.make_mesh((2,), ("batch",), (jax.sharding.AxisType.Explicit,))
    whole = perturb_and_differentiate(lambda p: ((FEATURES @ p["w"]) ** 2).sum(-1), PARAMS, RWP)
    with jax.set_mesh(mesh):
        x = jax.device_put(FEATURES, jax.sharding.PartitionSpec("batch"))
        step = jax.jit(
            lambda params, x: perturb_and_differentiate(
                lambda p: (((x @ p["w"]) ** 2).sum(-1), {"x": x}), params, RWP
            )
        )
        ours = step(PARAMS, x)
    np.testing.assert_allclose(ours.v["w"], whole.v["w"], rtol=1e-12)
    np.testing.assert_allclose(ours.gradient["w"], whole.gradient["w"], rtol=1e-12)


def test_no_steps_need_no_tensor():
    """A network of rank-1 tensors has nothing to perturb, which is allowed only if no steps are taken."""
    params = {"u": PARAMS["u"].reshape(-1)}
    losses = lambda p: (p["u"] ** 2)[:3]
    with pytest.raises(InputError, match="mask= perturbs no tensor"):
        perturb_and_differentiate(losses, params, RWP)
    assert not perturb_and_differentiate(losses, params, RWP, max_steps=0).v["u"].any()


def test_what_has_no_gradient_is_named():
    for held in (jax.random.key(0), "sgd", np.arange(3)):
        with pytest.raises(InputError, match="params= holds .* in extra, must hold floating"):
            perturb_and_differentiate(losses, PARAMS | {"extra": held}, RWP)


@pytest.mark.parametrize(
    ("mask", "means"),
    [
        (True, {"w", "u", "b"}),
        ({"w": False, "u": True, "b": np.bool_(True)}, {"u", "b"}),
        ({"w": jnp.asarray(True), "u": np.array(False), "b": False}, {"w"}),
        (lambda params: {"w": True, "u": False, "b": False}, {"w"}),
    ],
)
def test_masks_as_optax_takes_them(mask, means):
    """Masks may be trees, their upper parts or functions, with bools of Python, NumPy or JAX."""
    nested = {"net": PARAMS}
    perturbation = make_weight_perturbation("rwp", 0.1, 1, mask=mask)
    v = perturb_and_differentiate(losses, PARAMS, perturbation).v
    assert {name for name, value in v.items() if value.any()} == means
    upper = make_weight_perturbation("rwp", 0.1, 1, mask={"net": True})
    v = perturb_and_differentiate(lambda p: losses(p["net"]), nested, upper).v
    assert all(value.any() for value in v["net"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate_loss": lambda loss: loss}, "gate_loss= fails: TypeError"),
        ({"per_example": lambda: 1}, "per_example= fails: TypeError"),
        ({"per_example": lambda p: (losses(p)[0], "aux")}, "per_example= fails: TypeError"),
        ({"mask": lambda: True}, "mask= fails: TypeError"),
        ({"mask": {n: np.ones(PARAMS[n].shape, bool) for n in PARAMS}}, "mask= has array"),
        ({"mask": lambda p: {n: p[n].max() > 0 for n in p}}, "mask= is traced .* for b, must be"),
        ({"axis_name": 3}, "axis_name=3 must be the name of a mapped axis"),
        ({"axis_name": "batch"}, "axis_name='batch' is not mapped around this call"),
        ({"perturbation": np.ones((9, 9))}, "perturbation=array.*must be made by make_weight"),
        ({"max_steps": "traced floats"}, r"max_steps= is float64\[\], must be an integer"),
    ],
)
def test_functions_and_numbers_that_do_not_fit_are_named_in_one_line(changes, message):
    changes = dict(changes)
    perturbation = make_weight_perturbation("rwp", 0.1, 1, mask=changes.pop("mask", True))
    per_example = changes.pop("per_example", losses)
    arguments = {"perturbation": perturbation} | changes
    with pytest.raises(InputError, match=message) as raised:
        if "max_steps" in changes:
            jax.jit(
                lambda k: perturb_and_differentiate(
                    per_example, PARAMS, **(arguments | {"max_steps": k})
                )
            )(2.5)
        jax.jit(lambda p: perturb_and_differentiate(per_example, p, **arguments))(PARAMS)
    assert "\n" not in str(raised.value)
