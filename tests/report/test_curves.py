import numpy as np
import pytest
from PIL import Image

from rwp_jax.configs import digits_at, digits_at_awp, digits_at_rwp
from rwp_jax.report import style
from rwp_jax.report.curves import draw_learning_curves, mean_curve
from rwp_jax.report.drops import draw_drops, drops
from rwp_jax.report.published import PublishedCurve
from rwp_jax.report.results import read_result
from rwp_jax.runs.history import Change, History
from rwp_jax.training.schedules import make_schedule
from tests.small import write_run


def pixels(path, colour: str) -> np.ndarray:
    """Returns the rows and columns [N, 2] of the pixels of a colour (#RRGGBB)."""
    picture = np.asarray(Image.open(path).convert("RGB"), int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere(np.abs(picture - wanted).max(-1) < 12)


def make_results(path, *curves, of=digits_at, **splits):
    """Writes and reads runs of seeds 0, 1, ... of a config, with the given PGD accuracies."""
    results = []
    for seed, curve in enumerate(curves):
        config = of.get_config("full")
        config.seed = seed
        results.append(read_result(write_run(path / f"run{seed}", config, curve, **splits)))
    return results


def test_published_curves_end_where_the_runs_do(tmp_path):
    published = PublishedCurve(
        "x", "cifar10", "l_inf", list(range(1, 201)), [0.5] * 200, [0.3] * 200
    )
    path = tmp_path / "curves.png"
    results = make_results(tmp_path, [0.2, 0.4, 0.6])
    caption = draw_learning_curves({"ours": results}, [published], "title", path)
    ours, theirs = (pixels(path, style.COLOURS[i]) for i in (0, 3))
    assert len(ours) > 200 and len(theirs) > 50
    assert abs(int(ours[:, 1].max()) - int(theirs[:, 1].max())) < 40
    assert "published curves are dotted" in caption


def test_the_band_is_the_interval_over_seeds(tmp_path):
    results = make_results(tmp_path, [0.2, 0.4], [0.3, 0.4], [0.4, 0.4])
    curve = mean_curve(results, "pgd_accuracy")
    half = 4.302652729911275 * 0.1 / 3**0.5  # Student's t with 2 degrees of freedom, 97.5%
    assert curve[1][3:] == pytest.approx((0.3 - half, 0.3 + half))
    assert curve[2] == pytest.approx((0.4, 0.0, 3, 0.4, 0.4))


def test_one_seed_has_the_interval_of_its_test_images(tmp_path):
    (result,) = make_results(tmp_path, [0.25], train_pgd_accuracy=[0.5])
    value = mean_curve([result], "pgd_accuracy")[1]
    assert value.low == pytest.approx(0.208, abs=1e-3) and value.high == pytest.approx(0.297, 1e-2)
    assert mean_curve([result], "train_pgd_accuracy")[1].low is None


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        ("piecewise", 150, [75, 112.5]),
        ("piecewise_epoch", 200, [99, 149]),
        ("piecewise_epoch", 30, [14, 22]),
        ("cosine", 30, []),
        ("constant", 30, []),
    ],
)
def test_drops_are_where_the_schedule_has_them(schedule, epochs, expected, tmp_path):
    (result,) = make_results(tmp_path, [0.2])
    result.config.epochs, result.config.optimizer.schedule = epochs, schedule
    assert drops(result.config) == expected
    rate = make_schedule(schedule, 1.0, epochs, 4)
    for epoch in expected:
        step = int(4 * epoch)  # the first step after `epoch` epochs
        assert rate(step - 2) > 5 * rate(step), "t is at the end of a step: it may drop one early"


def test_an_extended_run_has_the_drops_of_each_schedule(tmp_path):
    change = Change(100, 400, {"epochs": [150, 300]}, "0.1.0")
    (result,) = make_results(tmp_path, [0.2])
    result.config.epochs, result.config.optimizer.schedule = 300, "piecewise"
    past = History((change,))
    assert drops(result.config, past) == [75, 150, 225]
    with style.panels(tmp_path / "p.png", 1.0) as (_, axes):
        caption = draw_drops(axes, [(result.config, past)])
        axes[0].plot([0, 300], [0, 1])
    assert "falls after 75 and 150 and 225 epochs (dotted" in caption
    assert caption.endswith("settings change after 100 epochs (dashed vertical lines)")


def test_the_caption_says_what_the_picture_shows(tmp_path):
    several = make_results(tmp_path / "a", [0.2, 0.3], [0.3, 0.3])
    caption = draw_learning_curves({"AT": several}, [], "title", tmp_path / "x.png")
    assert "95% intervals over seeds as bands" in caption
    assert "ringed, with its value" in caption and "training" not in caption
    assert "the learning rate falls after 1 and 1.5 epochs" in caption
    (one,) = make_results(tmp_path / "b", [0.2, 0.3])
    caption = draw_learning_curves({"AT": several, "RWP": [one]}, [], "title", tmp_path / "x.png")
    assert "over seeds or over test images for one seed" in caption


def test_a_best_epoch_early_in_training_is_in_the_picture(tmp_path):
    results = make_results(tmp_path, [0.6, 0.5, 0.3, 0.3, 0.3, 0.3])
    draw_learning_curves({"AT": results}, [], "title", tmp_path / "early.png")
    late = make_results(tmp_path / "late", [0.3, 0.3, 0.3, 0.3, 0.5, 0.6])
    draw_learning_curves({"AT": late}, [], "title", tmp_path / "late.png")
    rings = [len(pixels(tmp_path / f"{name}.png", style.COLOURS[0])) for name in ("early", "late")]
    assert min(rings) > 0.7 * max(rings)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([15.3, 15.8], (0.55, 30.55)),
        ([10.2, 21.5], (0.85, 30.85)),
        ([40.0, 80.0], (37.0, 83.0)),
        ([99.0, 100.0], (71.5, 101.5)),
        ([0.0, 1.0], (-1.5, 28.5)),
        ([0.0, 100.0], (-5.556, 105.556)),
        ([], (0.0, 1.0)),
    ],
)
def test_axes_do_not_zoom_into_noise(values, limits, tmp_path):
    with style.panels(tmp_path / "x.png", 2.0) as (_, (axes,)):
        style.show_percent(axes, values)
        assert axes.get_ylim() == pytest.approx(limits, abs=1e-3)


def test_nothing_is_left_of_a_picture_that_fails(tmp_path):
    with pytest.raises(KeyError), style.panels(tmp_path / "x.png", 2.0):
        raise KeyError
    assert not any(tmp_path.iterdir())


def test_methods_keep_their_looks_whatever_their_order(tmp_path, figures):
    modules = {"RWP": digits_at_rwp, "AT": digits_at, "AWP": digits_at_awp}
    groups = {
        name: make_results(tmp_path / name, [0.2, 0.3], of=module, train_pgd_accuracy=[0.4, 0.5])
        for name, module in modules.items()
    }
    draw_learning_curves(groups, [], "title", tmp_path / "x.png")
    axes = figures[0].axes[0]
    for name, index in (("AT", 0), ("AWP", 1), ("RWP", 2)):
        (line,) = (line for line in axes.lines if line.get_label() == name)
        assert (line.get_color(), line.get_marker()) == (style.colour(index), style.marker(index))
    dashes = [
        str(line._dash_pattern) for line in axes.lines if line.get_markerfacecolor() == "white"
    ]
    assert len(dashes) == len(set(dashes)) == 3, "training curves differ without colour"


@pytest.mark.parametrize("long", ["digits_at_awp_seed0", "runs/" + "of_a_long_name/" * 5])
def test_names_of_runs_are_whole_in_the_legend(long, tmp_path, figures):
    groups = {f"{long}{i}": make_results(tmp_path / str(i), [0.2, 0.3]) for i in range(3)}
    draw_learning_curves(groups, [], long, tmp_path / "x.png")
    (figure,) = figures
    (legend,) = figure.legends
    for text in (legend, figure._suptitle):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    names = [text.get_text().replace("\n", "") for text in legend.get_texts()]
    assert set(groups) <= set(names)
