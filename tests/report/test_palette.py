from rwp_jax.configs import digits_at, digits_at_awp, digits_at_rwp, digits_trades
from rwp_jax.report import palette, style


def test_the_first_of_a_method_has_its_look():
    modules = (digits_at_rwp, digits_at, digits_trades, digits_at_awp, digits_at_rwp)
    configs = [module.get_config() for module in modules]
    assert palette.looks(configs, more=2) == [2, 0, 3, 1, 4, 5, 6]


def test_no_two_looks_are_alike_and_none_is_a_methods():
    looks = [(style.colour(index), style.marker(index)) for index in range(20)]
    assert len(set(looks)) == 20
    assert not {style.colour(index) for index in range(3, 20)} & set(style.COLOURS[:3])


def test_methods_differ_in_grey():
    def grey(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    at, awp, rwp = map(grey, style.COLOURS[:3])
    assert rwp - at > 0.15 and awp - rwp > 0.15 and awp < 0.65
