"""The public names of the package."""

import ast
import dataclasses
import inspect
import subprocess
import sys
import warnings
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rwp_jax
from rwp_jax.configs import digits_at_rwp
from rwp_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("one_device", "few_optimizations")

NAMES = [name for name in rwp_jax.__all__ if name != "__version__"]
HEAVY = "orbax tensorflow tensorflow_datasets matplotlib sklearn tensorboardX jinja2 tqdm ml_collections"


def loaded_by(code: str) -> set[str]:
    """Returns the top-level names of the modules that `code` imports in a new process."""
    code += "\nimport sys\nprint(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_explained(name):
    value = getattr(rwp_jax, name)
    text = inspect.getdoc(value)
    assert len(text) > 20 and not text.startswith(f"{name}(") and value.__name__ == name
    assert name in dir(rwp_jax)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_fields_are_explained(name):
    value = getattr(rwp_jax, name)
    text = inspect.getdoc(value)
    if inspect.isfunction(value):
        explained = inspect.signature(value).parameters
        assert "\nRaises:\n" in text
    elif dataclasses.is_dataclass(value):
        explained = [field.name for field in dataclasses.fields(value) if field.init]
    else:
        explained = getattr(value, "_fields", ())
    assert [part for part in explained if f"\n  {part}: " not in text] == []


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(rwp_jax))
    (guarded,) = (
        node for node in tree.body if isinstance(node, ast.If) and "TYPE" in ast.dump(node.test)
    )
    imported = {(alias.name, node.module) for node in guarded.body for alias in node.names}
    assert imported == {(name, f"rwp_jax.{home}") for name, home in rwp_jax._HOMES.items()}
    assert {name for name, _ in imported} == set(NAMES)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'rwp_jax' has no attribute 'autoatack'"):
        _ = rwp_jax.autoatack


def test_importing_is_quick():
    assert not loaded_by("import rwp_jax") & {"jax", "flax", "numpy", *HEAVY.split()}


def test_attacks_and_weight_perturbations_need_little():
    names = "autoattack pgd make_threat_model make_weight_perturbation perturb_and_differentiate "
    names += "make_classifier make_objective register_model from_nnx"
    code = "import rwp_jax\n" + "\n".join(f"rwp_jax.{name}" for name in names.split())
    assert not loaded_by(code) & set(HEAVY.split())


X = np.random.default_rng(0).uniform(0, 1, (6, 4, 4, 1))
Y = np.arange(6) % 3
WEIGHTS = np.random.default_rng(1).standard_normal((16, 3))


def logits_fn(images):
    return images.reshape(len(images), -1) @ WEIGHTS


@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_pgd_stays_in_the_threat_model_and_raises_the_loss(norm):
    threat_model = rwp_jax.make_threat_model(norm, 0.2)
    attack = lambda x, y: rwp_jax.pgd(
        logits_fn, x, y, threat_model, steps=10, step_size=0.05, key=3
    )
    x_adv = attack(X, Y)
    distance = (
        np.abs(x_adv - X) if norm == "l_inf" else np.linalg.norm((x_adv - X).reshape(6, -1), axis=1)
    )
    assert distance.max() <= 0.2 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
    loss = lambda x: -jax.nn.log_softmax(logits_fn(x))[np.arange(6), Y]
    assert (loss(x_adv) > loss(X)).all()
    x, y = jnp.asarray(X), jnp.asarray(Y)
    # Within jit, whichever of its arguments are traced.
    for compiled in (
        jax.jit(attack)(x, y),
        jax.jit(lambda y: attack(x, y))(y),
        jax.jit(lambda x: attack(x, y))(x),
        jax.jit(lambda: attack(x, y))(),
    ):
        np.testing.assert_allclose(compiled, x_adv, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": X * 255}, r"x= must have pixels in \[0, 1\], they are in"),
        ({"x": np.where(X > 0.9, np.nan, X)}, "x= must have pixels .* some are NaN"),
        ({"x": np.uint8(X)}, "x= is uint8, must be floating-point"),
        ({"x": X[:0], "y": Y[:0]}, r"x= is \[0, 4, 4, 1\], must be images .* at least one"),
        ({"x": "images"}, "x= and y= must be arrays"),
        ({"logits_fn": lambda x: logits_fn(x) * np.nan}, "logits_fn has NaN or infinite logits"),
        ({"logits_fn": lambda x: jnp.sqrt(logits_fn(x) * 0)}, "logits_fn has NaN .* gradients"),
        ({"y": Y - 2**32}, "y= has labels that need more than 32 bits"),
        ({"y": Y + 2**32}, r"y= has labels that need more than 32 bits"),
        (
            {"loss": lambda logits, y: logits.argmax(-1)},
            "loss= returns int64.6., must return floating-point losses",
        ),
        (
            {"threat_model": rwp_jax.make_threat_model("l_2", 0.5), "step_size": 1e30},
            r"step_size=1e\+30 must be in \[0, .*\) .* for l_2 and images",
        ),
        (
            {"threat_model": rwp_jax.make_threat_model("l_2", 500)},
            r"threat_model.epsilon=500.0 must be in \[0, .*\) .* for l_2 and images",
        ),
        ({"threat_model": "l_inf"}, "threat_model='l_inf' must be made by make_threat_model"),
        ({"key": True}, "key=True must be one seed"),
        ({"key": 1.5}, "key=1.5 must be one seed"),
        ({"key": None}, "key=None must be one seed"),
        ({"key": jax.random.split(jax.random.key(0))}, r"key= of shape \[2\] must be one seed"),
        (
            {"loss": lambda logits, y: logits.mean()},
            r"loss= returns float64\[\], must return floating-point losses",
        ),
        (
            {"loss": lambda logits, y: logits},
            r"loss= returns float64\[6, 3\], must return floating-point losses",
        ),
        ({"logits_fn": lambda x: (logits_fn(x), 1)}, "logits_fn returns a tuple for images"),
        ({"logits_fn": lambda x: x.sum()}, r"logits_fn returns float64\[\] for images"),
        ({"logits_fn": lambda x: x @ np.ones((5, 2))}, r"logits_fn\(images\) fails on images"),
        ({"y": np.eye(6)}, r"y= is float64\[6, 6\], must be integer labels \[6\]"),
        ({"step_size": 2}, r"step_size=2 must be in \[0, 1\)"),
        ({"step_size": float("nan")}, "step_size=nan must be in"),
        ({"steps": -1}, "steps=-1 must be an integer of at least 0"),
        ({"steps": 2.5}, "steps=2.5 must be an integer of at least 0"),
        ({"steps": np.ones((9, 9))}, r"steps=array\(\[\[1.*\.\.\. must be an integer"),
        ({"loss": None}, "loss=None must be a function"),
        ({"logits_fn": X, "x": Y}, r"logits_fn=array.* must be a function"),
        ({"key": [[1], [1, 2]]}, r"key=\[\[1\], \[1, 2\]\] must be one seed"),
        ({"y": Y + 1}, r"y= has labels in \[1, 3\], must be in \[0, 3\)"),
    ],
)
def test_pgd_names_the_argument(changes, message):
    threat_model = rwp_jax.make_threat_model("l_inf", 0.1)
    arguments = {"logits_fn": logits_fn, "x": X, "y": Y, "threat_model": threat_model}
    arguments |= {"steps": 1, "step_size": 0.1}
    with pytest.raises(InputError, match=message):
        rwp_jax.pgd(**(arguments | changes))


@pytest.mark.parametrize(
    ("traced", "message"),
    [
        ({"steps": 2.0}, r"steps= is float64\[\], must be an integer"),
        ({"steps": True}, r"steps= is bool\[\], must be an integer"),
        ({"steps": jax.random.key(0)}, r"steps= is key<fry>\[\], must be an integer"),
        ({"step_size": jnp.full((4,), 0.1)}, r"step_size= is float64\[4\], must be a number"),
        ({"step_size": 0.1j}, r"step_size= is complex128\[\], must be a number"),
        ({"step_size": True}, r"step_size= is bool\[\], must be a number"),
    ],
)
def test_pgd_names_traced_numbers(traced, message):
    threat_model = rwp_jax.make_threat_model("l_inf", 0.1)
    attack = lambda numbers: rwp_jax.pgd(
        logits_fn, X, Y, threat_model, **({"steps": 1, "step_size": 0.1} | numbers)
    )
    with pytest.raises(InputError, match=message):
        jax.jit(attack)(traced)


def test_pgd_takes_steps_of_any_integer():
    threat_model = rwp_jax.make_threat_model("l_inf", 0.1)
    attack = lambda steps: rwp_jax.pgd(logits_fn, X, Y, threat_model, steps=steps, step_size=0.1)
    for steps in (np.uint8(2), np.int64(2)):
        np.testing.assert_array_equal(jax.jit(attack)(steps), attack(2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("norm", ["l_inf", "l_2"])
def test_numbers_of_numpy_and_traced_ones_widen_no_image(norm, dtype):
    """A float64 epsilon or step_size keeps its value and does not widen the images' dtype."""
    attack = lambda number, size: rwp_jax.pgd(
        lambda x: logits_fn(x).astype(dtype),
        jnp.asarray(X, dtype),
        Y,
        rwp_jax.make_threat_model(norm, number(0.125)),
        steps=2,
        step_size=size,
    )
    plain = attack(float, 0.0625)
    others = [attack(np.float64, np.float64(0.0625)), attack(np.float32, np.float32(0.0625))]
    others += [attack(Fraction, 0.0625), jax.jit(lambda size: attack(float, size))(0.0625)]
    for other in others:
        assert other.dtype == plain.dtype == dtype
        np.testing.assert_allclose(np.float64(other), np.float64(plain), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rwp_jax.make_threat_model(np.array(["l_2", "l_inf"]), 0.1),
            "^norm=array.* must be l_inf or l_2",
        ),
        (
            lambda: rwp_jax.make_classifier("wrn-10-1", 10, axis_name=5),
            "^axis_name=5 must be the name",
        ),
        (
            lambda: rwp_jax.make_classifier("wrn-10-1", 10, mean=np.array(0.5)),
            r"^mean=array\(0.5\) must be finite numbers, one per channel",
        ),
        (
            lambda: rwp_jax.make_weight_perturbation("awp", np.ones((3, 3))),
            r"^gamma=array\(\[\[1., 1., 1.\],\.\.\. must be",
        ),
        (lambda: rwp_jax.make_threat_model("l_inf", 8), r"^epsilon=8 must be in \[0, 1\)"),
        (lambda: rwp_jax.make_classifier("resnet", 10), "^name='resnet' is not a known model"),
        (lambda: rwp_jax.make_objective("tades"), "^name='tades' must be one of"),
        (lambda: rwp_jax.make_weight_perturbation("awp"), "^gamma= is missing: awp needs it"),
        (lambda: rwp_jax.make_weight_perturbation("rwp", 0.01), "^steps= is missing: rwp needs it"),
        (lambda: rwp_jax.make_weight_perturbation("rwp", -1), "^gamma=-1 must be in"),
        (lambda: rwp_jax.make_threat_model("l_2", "8/255"), "^epsilon='8/255' must be in"),
        (
            lambda: rwp_jax.make_weight_perturbation("rwp", 0.1, 1.5),
            "^steps=1.5 must be an integer",
        ),
        (lambda: rwp_jax.make_objective("trades", beta="6"), "^beta='6' must be in"),
        (lambda: rwp_jax.make_objective("at", betta=6), "^name='at' does not fit its settings"),
        (lambda: rwp_jax.load_run("nowhere"), "^workdir=nowhere holds no run"),
        (lambda: rwp_jax.load_run("nowhere", "first"), "^checkpoint=first must be one of"),
        (lambda: rwp_jax.train({"epochs": 1}), "^config= must be a ConfigDict, not dict"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_rwp_without_its_condition_warns():
    with pytest.warns(rwp_jax.RunWarning, match="^c_min= is missing: rwp perturbs on all examples"):
        rwp_jax.make_weight_perturbation("rwp", 0.01, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rwp_jax.make_weight_perturbation("rwp", 0.01, 10, float("inf"))
        rwp_jax.make_weight_perturbation("awp", 0.01)


@pytest.mark.parametrize(("ignored", "value"), [("steps", 10), ("c_min", 1.7)])
def test_awp_warns_of_settings_that_it_ignores(ignored, value):
    with pytest.warns(
        rwp_jax.RunWarning, match=f"^{ignored}={value} is ignored: awp takes one step"
    ):
        rwp_jax.make_weight_perturbation("awp", 0.01, **{ignored: value})


def test_a_loaded_run_says_how_attacks_use_it():
    run = rwp_jax.load_run("zoo:digits_at_rwp")
    assert f"epoch {run.epoch + 1})" in repr(run)
    with pytest.raises(InputError, match=r"use run.classifier.eval\(run.params, run.batch_stats, "):
        jax.jit(run.predict)(np.zeros((2, 8, 8, 1), np.float32))
    with pytest.raises(InputError, match=r"^x=None must be images \[B, H, W, C\]"):
        rwp_jax.autoattack(lambda x: x, None, np.zeros(2, int))


def test_a_config_that_lacks_a_key_is_refused(tmp_path):
    config = digits_at_rwp.get_config()
    del config.attack["steps"]
    with pytest.raises(InputError, match="^config.attack.steps is missing: start from rwp_jax"):
        rwp_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
