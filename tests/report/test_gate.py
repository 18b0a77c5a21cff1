from rwp_jax.configs import digits_at_awp, digits_at_rwp
from rwp_jax.report import style
from rwp_jax.report.gate import draw_gate
from tests.report.test_curves import make_results


def make_gate(path, of, *curves):
    shares = {"train_gate_open": [0, 10, 20, 20], "train_perturbation_steps": [0, 5, 10, 10]}
    return make_results(path, *curves, of=of, **shares)


def test_the_gate_has_its_drops_bands_and_room(tmp_path, figures):
    several = make_gate(tmp_path / "a", digits_at_rwp, [0.2] * 4, [0.3] * 4)
    one = make_gate(tmp_path / "b", digits_at_awp, [0.2] * 4)
    caption = draw_gate({"RWP": several, "AWP": one}, "The gate in training", tmp_path / "x.png")
    assert "bands: 95% intervals over seeds" in caption
    assert "the learning rate falls after 2 and 3 epochs" in caption
    for axes, top in zip(figures[0].axes, (100, 10), strict=True):
        low, high = axes.get_ylim()
        assert low <= -0.05 * top and high >= 1.05 * top
        assert {2, 3} <= {line.get_xdata()[0] for line in axes.lines}
    colours = {line.get_label(): line.get_color() for line in figures[0].axes[0].lines}
    assert (colours["RWP"], colours["AWP"]) == (style.colour(2), style.colour(1))
    caption = draw_gate({"AWP": one}, "The gate in training", tmp_path / "x.png")
    assert "bands" not in caption
