import pytest

from rwp_jax.errors import InputError
from rwp_jax.report.published import choose_published, read_published

HEADER = "source,dataset,norm,model,method,epoch,test_acc,test_robust_acc"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "curves.csv"
    rows = [
        f"{source},{dataset},linf,net,at,{epoch},0.{epoch}5,0.{epoch}1"
        for source, dataset in (("x", "cifar10"), ("x", "svhn"))
        for epoch in range(2)
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_a_curve_for_each_run(path):
    first, second = read_published(path)
    assert (first.name, second.name) == ("x-cifar10-linf-net-at", "x-svhn-linf-net-at")
    assert first.epochs == [1, 2]
    assert first.natural == [0.05, 0.15] and first.robust == [0.01, 0.11]


def test_those_of_the_runs_data_sets_or_by_name(path):
    curves = read_published(path)
    assert choose_published(curves, "", {("svhn_cropped", "l_inf")}) == curves[1:]
    assert choose_published(curves, "", {("svhn_cropped", "l_2"), ("npz", "l_inf")}) == []
    assert choose_published(curves, "*cifar10*,none", set()) == curves[:1]
    with pytest.raises(InputError, match="only=y\\*: no published curve .* x-cifar10-linf-net-at"):
        choose_published(curves, "y*", set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "lacks the columns source, dataset"),
        (HEADER.replace(",test_acc", "") + "\n", "lacks the column test_acc; required are"),
        ("", "lacks the columns source"),
        (HEADER + "\n", "has no rows below its header"),
        (HEADER + "\nx,y,z,v,w,0,high,0.1\n", "line 2: epoch must be an integer from 0"),
        (HEADER + "\nx,y,z,v,w\n", "line 2"),
        (HEADER + "\nx,y,z,v,w,0,58,30\n", "test_robust_acc must be in .0, 1."),
        (HEADER + "\nx,y,z,v,w,0,nan,0.1\n", "test_robust_acc must be in .0, 1."),
        (HEADER + "\nx,y,z,v,w,-1,0.2,0.1\n", "line 2"),
        (HEADER + "\nx,y,z,v,w,0,0.2,0.1\nx,y,z,v,w,0,0.2,0.1\n", "line 3: .* once in a run"),
    ],
)
def test_what_is_no_file_of_curves(text, message, tmp_path):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_published(tmp_path / "curves.csv")


def test_any_order_and_a_byte_order_mark(path):
    header, *rows = path.read_text().splitlines()
    curves = read_published(path)
    path.write_text("\n".join([header, *reversed(rows)]), encoding="utf-8-sig")
    assert sorted(read_published(path)) == sorted(curves)


def test_semicolons_and_decimal_commas(path):
    plain = read_published(path)
    path.write_text(path.read_text().replace(",", ";").replace(".", ","))
    assert read_published(path) == plain


def test_binary_and_missing_files(tmp_path):
    with pytest.raises(InputError, match="curves=.*missing.csv cannot be read: No such file"):
        read_published(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read: it is not a CSV file"):
        read_published(tmp_path / "binary.csv")
