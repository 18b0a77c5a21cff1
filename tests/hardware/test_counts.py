"""Counts of hand-written programs whose correct values can be worked out on paper."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from rwp_jax.hardware import counts
from rwp_jax.hardware.datasheets import GPUS, TPUS, chip_of
from rwp_jax.hardware.hlo import Array, arrays_of, parse

H100, V5E = GPUS["h100"], TPUS["v5e"]
HLO = pathlib.Path(__file__).parents[1] / "fixtures" / "hlo"

GPU = (HLO / "gpu.txt").read_text()


@pytest.fixture(scope="module")
def parts():
    return counts.count_program(GPU, H100, 8, "train")


def test_loops_and_the_rest(parts):
    assert [(part.name, part.trips) for part in parts] == [
        ("attack", 10),
        ("train", None),  # in no known scope: named after the program
        ("rest", 1),
    ]


def test_kernels_bytes_and_operations(parts):
    attack = parts[0]
    names = [kernel.name for kernel in attack.kernels]
    assert names == ["dot", "exact", "sums", "all-reduce-start"]
    matrix, vector = 4_000_000, 4000
    assert [kernel.bytes for kernel in attack.kernels] == [
        3 * matrix,
        3 * matrix,
        matrix + vector,
        2 * vector,
    ]
    assert attack.flops == 2 * 2 * 1000**3
    assert [kernel.reduces for kernel in attack.kernels] == [False, False, True, False]


def test_floors(parts):
    dot, exact, sums, exchange = parts[0].kernels
    assert dot.floor == pytest.approx(2e9 / 494.7e12)  # TF32 by default
    assert exact.floor == pytest.approx(2e9 / 66.9e12)
    assert sums.floor == pytest.approx(4_004_000 / 3352e9)
    assert exchange.floor == pytest.approx(8000 / 3352e9)
    assert exchange.sent == 4000
    assert parts[0].floor == pytest.approx(sum(k.floor for k in parts[0].kernels))


def test_only_what_is_gathered_counts(parts):
    (gather,) = parts[2].kernels
    assert gather.bytes == 2 * 128 * 3072 + 4 * 128


def test_collectives(parts):
    (exchange,) = parts[0].collectives
    assert (exchange.opcode, exchange.exchanged) == ("all-reduce", 4000)
    assert counts.collectives(parts, {"train": 4}) == (14, 14 * 4000)


def test_seconds_of_the_program(parts):
    attack, open_loop, rest = parts
    expected = 10 * attack.floor + 4 * open_loop.floor + rest.floor
    assert counts.seconds(parts, {"train": 4, "attack": 99}) == pytest.approx(expected)
    expected -= 3 * open_loop.floor
    assert counts.seconds(parts, {}) == pytest.approx(expected)


TPU = (HLO / "tpu.txt").read_text()


SLICES = (HLO / "slices.txt").read_text()


def test_of_what_is_sliced_in_a_fusion_only_the_slice_counts():
    """A slice of a large buffer, one within an inner fusion, and a buffer that is also read whole."""
    (rest,) = counts.count_program(SLICES, H100, 1, "m")
    sliced, nested, whole, started = rest.kernels
    assert sliced.bytes == 2 * 4 * 10
    assert nested.bytes == 2 * 4 * 10
    assert whole.bytes == 4 * 100_000 + 4 * 10
    assert started.bytes == 2 * 2 * 4 * 10  # a combined all-reduce: two operands, two results
    assert started.exchanged == 2 * 4 * 10


def test_links_and_kernels_run_side_by_side():
    (rest,) = counts.count_program(SLICES, H100._replace(link=1.0), 8, "m")
    assert rest.floor == 80.0


def test_on_tpus_only_the_main_memory_counts():
    (rest,) = counts.count_program(TPU, V5E, 4, "train")
    copy, piece, product = rest.kernels
    assert copy.bytes == 2 * 512 * 256 and copy.overlaps
    assert piece.bytes == 4 * 512 * 256 and piece.overlaps
    assert product.bytes == 0 and not product.overlaps
    assert product.flops == 2 * 64 * 512 * 256


def test_copies_beside_kernels_hide_behind_the_memory_or_the_arithmetic():
    (rest,) = counts.count_program(TPU, V5E, 4, "train")
    busy = 2 * 64 * 512 * 256 / 197e12
    assert rest.floor == pytest.approx(max(busy, 6 * 512 * 256 / 819e9))


def test_a_conditional_counts_by_its_cheaper_branch_and_a_call_by_what_it_calls():
    text = """HloModule m

%cheap (p: f32[10]) -> f32[10] {
  %p = f32[10]{0} parameter(0)
  ROOT %n = f32[10]{0} negate(%p)
}

%dear (q: f32[10]) -> f32[10] {
  %q = f32[10]{0} parameter(0)
  %m = f32[10]{0} negate(%q)
  ROOT %o = f32[10]{0} negate(%m)
}

ENTRY %main (b: pred[], x: f32[10]) -> f32[10] {
  %b = pred[] parameter(0)
  %x = f32[10]{0} parameter(1)
  %y = f32[10]{0} call(%x), to_apply=%dear
  ROOT %z = f32[10]{0} conditional(%b, %x, %y), true_computation=%dear, false_computation=%cheap
}
"""
    (rest,) = counts.count_program(text, H100, 1, "m")
    assert [kernel.name for kernel in rest.kernels] == ["m", "o", "n"]


def test_a_program_of_this_machine_can_be_counted():
    """The parser reads XLA's text for the local backend too."""

    def step(x):
        with jax.named_scope("perturb"):
            return jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x @ x), x)

    text = jax.jit(step).lower(jnp.ones((64, 64), jnp.float32)).compile().as_text()
    parts = {part.name: part for part in counts.count_program(text, H100, 1, "step")}
    assert parts["perturb"].trips == 7
    assert parts["perturb"].kernels


def test_arrays():
    assert arrays_of("(bf16[2,3]{1,0:T(8,128)S(1)}, /*index=1*/pred[], u8[0]{0}, f8e4m3fn[4])") == (
        Array("bf16", (2, 3), 1),
        Array("pred", (), 0),
        Array("u8", (0,), 0),
        Array("f8e4m3fn", (4,), 0),
    )
    sizes = [array.bytes for array in arrays_of("(bf16[2,3], pred[], u8[0], f8e4m3fn[4], s4[3])")]
    assert sizes == [12, 1, 0, 4, 2]


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="ENTRY"):
        parse("nothing")


def test_chips_by_the_name_that_jax_has():
    assert chip_of("NVIDIA H100 80GB HBM3") is H100
    assert chip_of("TPU v5 lite") is V5E
    assert chip_of("cpu") is None
