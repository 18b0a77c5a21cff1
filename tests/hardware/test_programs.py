"""The trainer's programs and plans, compiled for virtual CPU devices with a TPU's data sheet."""

import pathlib

import jax
import pytest

from rwp_jax.configs import digits_at_rwp, digits_rst_rwp, digits_trades_rwp
from rwp_jax.distributed.devices import mesh_of
from rwp_jax.errors import InputError
from rwp_jax.hardware import counts, plan, programs, report
from rwp_jax.hardware.cost import forward_flops
from rwp_jax.hardware.counts import seconds
from rwp_jax.hardware.datasheets import TPUS
from rwp_jax.hardware.programs import DoesNotFit, compile_programs
from rwp_jax.hardware.topology import Hardware

CHIP = TPUS["v6e"]


def small(module=digits_at_rwp, **changes):
    config = module.get_config(*["full"] * (module is digits_at_rwp))
    config.update_from_flattened_dict(
        {"batch_size": 16, "evaluation.batch_size": 16, "evaluation.steps": 3} | changes
    )
    return config


def hardware(devices=4, **changes) -> Hardware:
    return Hardware("four", CHIP._replace(**changes), mesh_of(jax.devices()[:devices]), {})


@pytest.fixture(scope="module")
def train():
    (program,) = compile_programs(small(), hardware(), "train")
    return program


@pytest.fixture(scope="module")
def planned():
    config = small(**{"epochs": 10, "weight_perturbation.start_epoch": 4})
    return config, plan.make_plan(config, hardware())


def test_the_training_step(train):
    parts = {part.name: part for part in train.parts}
    assert list(parts)[-1] == "rest" and {"attack", "perturb"} <= set(parts)
    forward = 16 / 4 * forward_flops("wrn-10-1", (8, 8, 1), 10)
    # More on CPUs, where images smaller than the kernel are padded first.
    assert parts["attack"].flops == pytest.approx(2 * forward, rel=0.25)
    assert parts["perturb"].flops == pytest.approx(3 * forward, rel=0.25)
    assert parts["attack"].collectives and parts["perturb"].collectives


def test_a_sweep_compiles_one_step():
    """A sweep over the paper's settings uses one program; another K2 needs another."""
    sweep = {
        "threat.epsilon": 0.2,
        "attack.step_size": 0.03,
        "weight_perturbation.gamma": 0.02,
        "weight_perturbation.c_min": 0.5,
        "optimizer.learning_rate": 0.02,
    }
    texts = [
        programs.lower_train(small(**changes), hardware()).as_text()
        for changes in ({}, sweep, {"weight_perturbation.steps": 3})
    ]
    assert texts[0] == texts[1] != texts[2]


def test_memory_is_at_least_the_training_set_and_the_state(train):
    assert train.memory > train.arguments > 1437 * 64


def test_the_evaluation():
    (program,) = compile_programs(small(), hardware(), "evaluate")
    assert "attack" in [part.name for part in program.parts]


def test_loops_of_the_same_scope_have_names_of_their_own():
    text = (pathlib.Path(__file__).parents[1] / "fixtures/hlo/gpu.txt").read_text()
    text = text.replace('op_name="jit(step)/while"', 'op_name="jit(step)/attack/while"')
    parts = counts.count_program(text, CHIP, 8, "train")
    assert [part.name for part in parts] == ["attack", "attack 2", "rest"]


def test_autoattack():
    config = small(**{"model.name": "wrn-10-1"})
    programs = list(compile_programs(config, hardware(), "autoattack", 16))
    assert [program.name for program in programs] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for program in programs:
        assert program.parts[0].name == program.name
        assert program.parts[0].flops > 0


def test_figures_and_text(train):
    figures = report.figures([train], hardware())
    assert [loop["name"] for loop in figures["loops"]] == [part.name for part in train.parts]
    assert figures["memory_bytes"] == train.memory
    loops = figures["loops"]
    assert figures["collectives"]["number"] == sum(x["collectives"]["number"] for x in loops)
    assert all(loop["kernels"] > 0 and loop["floor_ms"] > 0 for loop in loops)
    assert {loop["batch_size"] for loop in loops} == {16}
    assert next(loop for loop in loops if loop["name"] == "attack")["trips"] == 10
    text = report.describe(train, hardware())
    assert "attack x 10" in text
    assert "of 32 GB per device" in text


def test_floors_of_a_plan(planned):
    config, made = planned
    parts = made.programs["train"].parts
    step = lambda k: seconds(parts, {"attack": 10, "perturb": k + 1})
    batch = seconds(made.programs["evaluate"].parts, {"attack": 3})
    steps, batches = 1437 // 16, 23 + 23  # 360 test images and 360 training images
    assert config.evaluation.train_examples == 360
    none, most = made.floors
    assert (none.k, most.k) == (0, 10)
    assert none.step == pytest.approx(step(0)) and most.step == pytest.approx(step(10))
    assert none.evaluation == most.evaluation == pytest.approx(batches * batch)
    assert most.epoch == pytest.approx(steps * step(10) + batches * batch)
    run = steps * (4 * step(0) + 6 * step(10)) + 10 * batches * batch
    assert most.run == pytest.approx(run)
    assert none.run == pytest.approx(10 * none.epoch)


def test_the_text_of_a_plan(planned):
    _, made = planned
    text = plan.describe(made)
    assert "\nfits: " in text and "of 32 GB per device; at least" in text
    assert "for 10 epochs" in text and "with k = 0\nwith k = 10: at least" in text
    assert "floors" in text


def test_a_plan_without_weight_perturbation_has_one_k():
    config = small(digits_trades_rwp, **{"weight_perturbation.name": "none"})
    made = plan.make_plan(config, hardware())
    assert [floors.k for floors in made.floors] == [0]
    assert "with k" not in plan.describe(made)


@pytest.fixture
def sized(monkeypatch, train):
    """Makes programs need 1 GB per image of the batch, plus 4 GB for training or 2 GB for evaluation."""

    def compile_programs(config, hardware, program):
        section = config if program == "train" else config.evaluation
        memory = ((4 if program == "train" else 2) + section.batch_size) * 2**30
        if memory > hardware.chip.memory:
            raise programs.does_not_fit(program, memory, hardware)
        yield train._replace(memory=memory, arguments=2 * 2**30)

    monkeypatch.setattr(plan, "compile_programs", compile_programs)


@pytest.mark.parametrize(
    ("batch_size", "evaluated", "gigabytes", "message"),
    [
        (
            32,
            4,
            16,
            "train needs 36.0 of 16 GB per device of four, with config.batch_size=32; the la",
        ),
        (32, 4, 16, "fits is 8, as far as halving goes, and config.remat=True needs less memory"),
        (32, 4, 6, "config.batch_size=32; halving it does not help, and config.remat=True needs"),
        (12, 4, 8, "config.batch_size=12; it cannot be halved over the devices"),
        (
            4,
            32,
            16,
            "config.evaluation.batch_size=32; the largest batch that fits is 8, as far as halving goes",
        ),
    ],
)
def test_what_does_not_fit_says_which_batch_would(sized, batch_size, evaluated, gigabytes, message):
    config = small(**{"batch_size": batch_size, "evaluation.batch_size": evaluated})
    chip = {"gigabytes": gigabytes, "usable": gigabytes + 0.1}
    with pytest.raises(DoesNotFit) as error:
        plan.make_plan(config, hardware(**chip))
    assert message in str(error.value) and str(error.value).startswith("does not fit: ")
    assert ("remat" in str(error.value)) == ("config.batch_size" in str(error.value))


def test_a_program_that_does_not_fit():
    message = r"does not fit: train needs 0.0 of 32 GB per device of four \(usable: 0.0\)"
    with pytest.raises(DoesNotFit, match=message):
        list(compile_programs(small(), hardware(usable=0), "train"))


def test_the_training_step_is_tried_first_and_compiled_once(planned, monkeypatch):
    """Compiling the evaluation for TPUs takes minutes, a waste if training does not fit."""
    made, asked = planned[1].programs, []
    monkeypatch.setattr(plan, "_one", lambda c, h, name: asked.append(name) or made[name])
    plan.make_plan(planned[0], hardware())
    assert asked == ["train", "evaluate"]


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
            "hbm. Used 21.40G of 15.75G hbm. Exceeded hbm capacity by 5.65G.",
            21.4,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (512.00M) exceeds available HBM (15.75G).",
            0.5,
        ),
    ],
)
def test_the_compiler_says_that_memory_is_not_enough(text, gigabytes):
    error = programs._what_failed(RuntimeError(text), "train", hardware())
    assert isinstance(error, DoesNotFit)
    assert error.needed == pytest.approx(gigabytes * 2**30)


def test_other_memories_of_the_compiler():
    text = "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 17M of 16M vmem."
    error = programs._what_failed(RuntimeError(text), "train", hardware())
    assert isinstance(error, InputError) and "vmem" in str(error)
    error = RuntimeError("INTERNAL: something else")
    assert programs._what_failed(error, "train", hardware()) is error


def test_a_first_stage_is_part_of_the_plan():
    changes = {"data.labeled_examples": 479, "self_training.epochs": 3, "epochs": 2}
    config = small(digits_rst_rwp, **changes)
    made = plan.make_plan(config, hardware())
    assert made.first_stage > 0
    assert "RST's first stage takes" in plan.describe(made)


@pytest.mark.parametrize(
    ("changes", "program", "message"),
    [
        ({"batch_size": 18}, "train", "config.batch_size=18 must be a positive multiple of"),
        ({"evaluation.batch_size": 6}, "train", "config.evaluation.batch_size=6"),
        ({}, "training", "program='training' must be one of train, evaluate, autoattack"),
        ({"model.name": "wrn-11-1"}, "train", "config.model.name='wrn-11-1'"),
        ({"batch_size": 2048}, "train", "config.batch_size=2048 is larger than the training set"),
        ({"augment.padding": 40}, "train", "config.augment.padding=40 must be smaller"),
        ({"model.mean": (0.5, 0.5), "model.std": (0.5, 0.5)}, "train", "config.model.mean="),
        ({"data.labeled_examples": 2000}, "train", "config.data.labeled_examples=2000"),
        ({"data.validation_examples": 1437}, "train", "config.data.validation_examples=1437"),
        ({"self_training.epochs": 3}, "train", "config.self_training.epochs=3 needs images to"),
        ({"dtype": "float64"}, "train", "is not supported by TPU v6 lite"),
    ],
)
def test_bad_values(changes, program, message):
    with pytest.raises(InputError, match=message):
        list(compile_programs(small(**changes), hardware(), program))


def test_batches_of_autoattack_that_do_not_divide():
    with pytest.raises(InputError, match="batch_size=10 must be a positive multiple"):
        list(compile_programs(small(), hardware(), "autoattack", 10))
