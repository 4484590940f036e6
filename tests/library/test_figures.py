"""Figures: what they count, that text is readable, that bytes are stable."""

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from mixtures import draw_mixtures

from hpaloc.classes import COLOURS, N_CLASSES, NAMES
from hpaloc.evaluation.cells import count_confusions
from hpaloc.evaluation.folder import evaluate
from hpaloc.figures import data, scores, training
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ManifestRow, SheetRow
from hpaloc.sheet import read_sheet
from hpaloc.tables import PROBABILITIES

TRAIN_SHEET = Path(__file__).parents[3] / "shared" / "data" / "hpa-2021" / "train.csv"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in order, each once."""
    saved: list[Figure] = []
    save = Figure.savefig

    def spy(self: Figure, *arguments, **options) -> None:
        save(self, *arguments, **options)
        if self not in saved:
            saved.append(self)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text().strip()]


def assert_readable(figure: Figure) -> None:
    """No two pieces of text overlap, none is smaller than 5 points."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    # Ticks beyond the limits of an axis are kept by matplotlib but not drawn.
    beyond = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    shown = []
    for text in texts(figure):
        box = text.get_window_extent(renderer)
        if not text.get_visible() or text in beyond or box.width == 0:
            continue
        if text.axes is not None and not text.axes.axison and text not in text.axes.texts:
            continue
        assert text.get_fontsize() >= 5, text.get_text()
        if text.get_rotation() in (0, 90):
            shown.append((text.get_text(), box))
    assert shown
    for (one, a), (other, b) in combinations(shown, 2):
        overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # Boxes are as high as the tallest letters of the font, ink is not.
        assert min(overlap) <= 1.5, f"{one!r} and {other!r} overlap by {overlap} px"


def random_rows(n: int, seed: int = 0) -> list[SheetRow]:
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        labels = np.sort(generator.choice(N_CLASSES, generator.integers(1, 5), replace=False, p=None))
        rows.append(SheetRow(f"field{index}", tuple(int(label) for label in labels), 0.08))
    return rows


def without_images(row: SheetRow) -> ManifestRow:
    return ManifestRow(row.id, row.labels, row.pixel_size, paths=dict.fromkeys(COLOURS, "absent.png"))


def image_rows(folder: Path, n: int, shape: tuple[int, int] = (96, 128)) -> list[ManifestRow]:
    generator = np.random.default_rng(1)
    rows = []
    for index in range(n):
        paths = {}
        for colour in COLOURS:
            paths[colour] = str(folder / f"field{index}_{colour}.png")
            cv2.imwrite(paths[colour], generator.integers(0, 255, shape, dtype=np.uint8))
        rows.append(ManifestRow(f"field{index}", (index % N_CLASSES,), 0.5, paths=paths))
    return rows


@pytest.mark.skipif(not TRAIN_SHEET.is_file(), reason="the sheet ../shared/data/hpa-2021/train.csv is absent")
def test_explore_counts_the_public_sheet(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = read_sheet(TRAIN_SHEET, labels=True)
    data.draw_data([without_images(row) for row in rows], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}{suffix}" for name in data.DATA for suffix in (".png", ".svg")
    )
    shown = [[text.get_text() for text in texts(figure)] for figure in drawn]
    # Counts that another program took from the same sheet.
    assert "8,797 (1,551 alone)" in shown[0]
    assert "78 (1 alone)" in shown[0]
    assert "34 (34 alone)" in shown[0]
    assert {"10,508\n48.2%", "8,873\n40.7%", "2,233\n10.2%", "190\n0.9%", "2\n<0.1%"} <= set(shown[1])
    assert "21,806 fields\n34 of 171 pairs never occur (blank)" in shown[2]
    counts = data.co_occurrence_counts([row.labels for row in rows])
    pairs = {(0, 16): 2410, (0, 2): 1127, (0, 13): 1078, (13, 16): 811, (0, 7): 748, (0, 12): 688}
    assert {pair: counts[pair] for pair in pairs} == pairs
    assert (counts == counts.T).all()
    for figure in drawn[:3]:
        assert_readable(figure)


def test_explore_draws_fields_of_every_location(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = image_rows(tmp_path, 17)
    Path(rows[4].paths["green"]).write_bytes(b"broken")
    data.draw_data(rows, tmp_path / "out")
    panels = [text.get_text() for text in texts(drawn[4])]
    assert sum("no readable" in text for text in panels) == N_CLASSES - 16
    # Each picture has its own scale bar.
    assert panels.count("20 µm") == 16
    for figure in drawn:
        assert_readable(figure)
    images = [axes for axes in drawn[3].axes if axes.images]
    assert [axes.get_title() for axes in images] == [
        "Microtubules", "Protein of interest", "Nucleus", "Endoplasmic reticulum",
    ]  # fmt: skip
    bar = drawn[3].axes[-1].lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(20 / (128 * 0.5))
    # A field that is not square keeps its shape.
    assert images[0].images[0].get_array().shape == (96, 128, 3)


def test_explore_without_labels_draws_the_channels_alone(tmp_path: Path) -> None:
    data.draw_data([without_images(SheetRow("a", None, 0.08))], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure3_channels.png", "figure3_channels.svg"]


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    labels = [row.labels for row in random_rows(50)]
    for folder in ("one", "two"):
        data.label_distribution(labels, tmp_path / folder / "a")
        data.co_occurrence(labels, tmp_path / folder / "b")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_dot_in_a_name_is_kept(tmp_path: Path) -> None:
    data.labels_per_field([(1,), (2, 3)], tmp_path / "model.v2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.v2.png", "model.v2.svg"]


def test_noise_is_not_stretched() -> None:
    generator = np.random.default_rng(0)
    images = {colour: generator.integers(0, 4, (64, 64)).astype(np.uint16) for colour in COLOURS}
    images["red"][20:40, 20:40] = 4000
    white = data.white_levels(images)
    assert white["red"] == 4000
    assert white["green"] == 1000
    assert data.composite(images)[..., 1].max() < 0.01


def test_small_bright_structures_are_not_clipped() -> None:
    images = {colour: np.full((400, 400), 60 if colour == "green" else 0, np.uint8) for colour in COLOURS}
    # A centrosome in each of ten cells: 0.1 % of the field.
    for row in range(10):
        images["green"][20 + 36 * row : 24 + 36 * row, 100:104] = 200
    assert data.white_levels(images)["green"] == 200
    assert 0.25 < np.median(data.composite(images)[..., 1]) < 0.35


def history(epochs: int) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    names = ["loss", "accuracy", "balanced_accuracy", "auc"]
    table = {"epoch": np.arange(epochs), "learning_rate": np.linspace(5e-4, 1.1e-3, epochs)}
    table |= {f"{prefix}{name}": generator.random(epochs) for prefix in ("", "val_") for name in names}
    return pd.DataFrame(table)


@pytest.mark.parametrize("epochs", [1, 10, 40])
def test_training_figures(tmp_path: Path, drawn: list[Figure], epochs: int) -> None:
    table = history(epochs)
    table.to_csv(tmp_path / "history.csv", index=False)
    mass = np.zeros((96, 96))
    mass[48, 40:56] = 1 / 16
    fields = {"tile": 32, "theoretical": 83, "propagated": mass, "effective": mass, "radius_50": 4.0, "radius_95": 8.0}
    np.savez(tmp_path / "fields.npz", **fields)
    training.draw_training(tmp_path / "history.csv", tmp_path / "fields.npz", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.svg")) == [
        f"{name}.svg" for name in training.TRAINING
    ]
    rate = drawn[0].axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(rate, table["learning_rate"])
    labels = [line.get_label() for line in drawn[2].axes[0].lines]
    assert labels == [
        f"{name}, {part}" for part in ("training", "validation") for name in ("all cells", "mean of classes")
    ]
    np.testing.assert_allclose(drawn[3].axes[0].lines[1].get_ydata(), table["val_auc"])
    within = next(line for line in drawn[4].axes[2].lines if line.get_label() == "effective")
    assert np.interp(3.0, *within.get_data()) < 0.5 < np.interp(5.0, *within.get_data())
    assert within.get_ydata()[-1] == pytest.approx(1)
    for figure in drawn:
        assert_readable(figure)


@pytest.mark.parametrize("n_classes", [N_CLASSES, 3])
def test_evaluation_figures(tmp_path: Path, drawn: list[Figure], n_classes: int) -> None:
    generator = np.random.default_rng(3)
    single = np.repeat(generator.integers(0, n_classes, 60), 12)
    single[single == n_classes - 1] = 17
    p = generator.dirichlet(np.full(N_CLASSES, 0.3), len(single))
    p[np.arange(len(single)), single] += 0.3
    if n_classes == 3:
        p[:, 3:17] = 0
    cells = pd.DataFrame({"field": [f"f{index // 12}" for index in range(len(single))], "cell": np.arange(len(single))})
    cells = pd.concat([cells, pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=list(PROBABILITIES))], axis=1)
    cells["labels"] = p.argmax(axis=1).astype(str)
    fields = pd.DataFrame({"field": [f"f{index}" for index in range(60)], "sheet_labels": single[::12].astype(str)})
    fields["antibody"] = [f"HPA{label}" for label in single[::12]]
    # A collection may have a name that reads like a number or a missing value.
    name = {3: "007", 19: "NA"}[n_classes]
    files = CollectionFiles(name, folder=tmp_path)
    files.path("pooled_cells").parent.mkdir(parents=True)
    cells.to_parquet(files.path("pooled_cells"))
    fields.to_parquet(files.path("pooled_fields"))
    evaluate([files], tmp_path, replicates=20)
    scores.draw_scores(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / name).glob("*.png")) == sorted(
        f"{name}.png" for name in scores.SCORES
    )
    for figure in drawn:
        assert_readable(figure)
    counts = count_confusions(single, p.argmax(axis=1))
    kept = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    ticks = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert ticks == [f"{NAMES[index]} ({counts[index].sum():,})" for index in kept]


@pytest.mark.parametrize(
    ("most", "ticks"), [(1, ["1"]), (6, list("123456")), (40, ["1", "2", "5", "10", "20"])], ids=str
)
def test_the_scale_of_counts_has_numbers(tmp_path: Path, drawn: list[Figure], most: int, ticks: list[str]) -> None:
    data.co_occurrence([(3,)] * most + [(1, 2)], tmp_path / "pairs")
    bar = drawn[0].axes[1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ticks
    assert_readable(drawn[0])


def test_no_interval_of_a_pooled_call_is_cut_off(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [
        {"level": level, "size": size, "method": method, "accuracy": 0.95, "low": low, "high": 1.0, "n_owners": 9}
        for level, low in (("field", 0.9), ("protein", 0.2))
        for size in (1, 5)
        for method in ("mean", "vote")
    ]
    scores.pooled(pd.DataFrame(rows), tmp_path / "pooled")
    for axes in drawn[0].axes:
        bottom, top = axes.get_ylim()
        assert bottom < 0.2
        assert top > 1
    assert_readable(drawn[0])


def test_protein_and_microtubules_differ_without_colour_vision_of_red_and_green(tmp_path: Path) -> None:
    images = {colour: np.zeros((64, 64), np.uint8) for colour in COLOURS}
    images["red"][:, :32] = 200
    images["green"][:, 32:] = 200
    picture = data.composite(images)
    # To a deuteranope red and green are one sum; blue must tell the two apart.
    assert abs(picture[0, 10, 2] - picture[0, 50, 2]) > 0.5


def test_scatter_of_mixtures_says_correlation_and_error(tmp_path: Path, drawn: list[Figure]) -> None:
    true = np.array([0.25, 0.5, 0.75, 0.25, 0.5, 0.75])
    table = pd.DataFrame({"true": true, "found": true + 0.1, "pair": ["a", "b"] * 3})
    draw_mixtures(table, tmp_path / "mixtures")
    assert drawn[0].axes[0].get_title() == "r = 1.000, mean absolute error 0.100, n = 6"
    assert_readable(drawn[0])
