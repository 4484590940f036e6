import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_inputs import write_model_folder

from hpaloc.classes import N_CLASSES, NEGATIVE
from hpaloc.network.calls import call_labels, settle_negative
from hpaloc.network.device import NoGpuError, check_capability, choose_precision, precision_policy, select_device
from hpaloc.network.folder import check_folder, write_checksums
from hpaloc.network.fully_convolutional import FullyConvolutionalResNet50
from hpaloc.network.inference import averaged, dihedral_view, fold_batch_norm
from hpaloc.network.loading import load_folder
from hpaloc.network.options import ModelError
from hpaloc.network.receptive_field import effective_receptive_field, propagated_receptive_field
from hpaloc.network.resnet import FusedBatchNormalization, classifier
from hpaloc.network.starting_weights import adapt_first_convolution, load_weights
from hpaloc.network.theoretical_field import theoretical_receptive_field

pytestmark = pytest.mark.network

SIZE = 32


def stir(model: keras.Model, seed: int = 0) -> None:
    """Give every batch norm statistics and scales of its own, as training would."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.uniform(0.3, 0.7, gamma.shape),
                    rng.normal(0, 0.2, beta.shape),
                    rng.normal(0, 0.2, mean.shape) * (100 if layer.name == "conv1_bn" else 1),
                    rng.uniform(0.5, 1.5, variance.shape) * (10_000 if layer.name == "conv1_bn" else 1),
                ]
            )


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    network = classifier(("green", "red"), "sigmoid", SIZE)
    stir(network)
    return network


@pytest.fixture(scope="module")
def tiles():
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 2), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("model") / "m", model, ("green", "red"), "sigmoid", SIZE)


def test_the_graph_is_that_of_resnet50_with_the_head_of_the_method(model):
    stock = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    names = [layer.name for layer in model.layers]
    assert names[1:175] == [layer.name for layer in stock.layers][1:]
    assert names[175:] == [
        "pool",
        "pool_bn",
        "pool_dropout",
        "embedding",
        "embedding_bn",
        "embedding_dropout",
        "location",
    ]
    assert model.get_layer("pool_dropout").rate == 0.5
    assert model.get_layer("embedding_dropout").rate == 0.25
    assert model.get_layer("embedding").units == 512
    assert model.output_shape == (None, N_CLASSES)
    # Every kernel of the stock network is there; only the biases of its 53 convolutions are not.
    kernels = [layer.kernel.shape for layer in stock.layers if isinstance(layer, keras.layers.Conv2D)]
    kernels[0] = (7, 7, 2, 64)
    assert [
        tuple(w.shape) for layer in model.layers if isinstance(layer, keras.layers.Conv2D) for w in layer.weights
    ] == [tuple(shape) for shape in kernels]


def test_an_untrained_sigmoid_head_starts_at_the_odds_of_one_class_in_nineteen():
    network = classifier(("green",), "sigmoid", SIZE)
    outputs = network(np.zeros((2, SIZE, SIZE, 1), np.uint8)).numpy()
    np.testing.assert_allclose(outputs, 1 / 19, atol=1e-5)


def test_softmax_outputs_sum_to_one():
    network = classifier(("red", "green", "blue", "yellow"), "softmax", SIZE)
    outputs = network(np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 4), np.uint8)).numpy()
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ("green", "cyan")}, "cyan"),
        ({"channels": ("green", "green")}, "distinct"),
        ({"channels": ()}, "distinct"),
        ({"channels": ("green",), "head": "linear"}, "linear"),
        ({"channels": ("green",), "input_size": 16}, "at least 32"),
    ],
)
def test_what_cannot_be_built_is_named(settings, message):
    with pytest.raises(ModelError, match=message):
        classifier(**settings)


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_batch_norm_gives_what_keras_gives(training):
    rng = np.random.default_rng(0)
    maps = rng.normal(3, 2, (4, 6, 5, 7)).astype(np.float32)
    plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    fused = FusedBatchNormalization(momentum=0.9, epsilon=1e-5)
    plain.build(maps.shape)
    fused.build(maps.shape)
    weights = [rng.uniform(0.5, 2, 7) for _ in range(4)]
    plain.set_weights(weights)
    fused.set_weights(weights)
    with tf.GradientTape(persistent=True) as tape:
        source = tf.constant(maps)
        tape.watch(source)
        expected, found = plain(source, training=training), fused(source, training=training)
        sums = [tf.reduce_sum(expected**3), tf.reduce_sum(found**3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tape.gradient(sums[1], source), tape.gradient(sums[0], source), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, rtol=1e-4)
    # The fused kernel keeps the unbiased variance: n / (n - 1) with n = 4·6·5 values a channel.
    batch = (np.asarray(plain.moving_variance) - 0.9 * weights[3]) / 0.1
    assert not training or np.allclose(fused.moving_variance, 0.9 * weights[3] + 0.1 * batch * 120 / 119, rtol=1e-4)


@pytest.mark.parametrize(("chosen", "on"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_onednn_computes_the_network_unless_the_user_turns_it_off(chosen, on):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    code = "import hpaloc.network.resnet"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | chosen, capture_output=True, text=True, check=True
    )
    assert ("oneDNN custom operations are on" in done.stderr) == on


def test_a_first_kernel_keeps_the_planes_of_known_colours():
    kernel = np.arange(7 * 7 * 3 * 2, dtype=np.float32).reshape(7, 7, 3, 2)
    source = ["red", "green", "blue"]
    assert np.array_equal(adapt_first_convolution(kernel, source, source), kernel)
    turned = adapt_first_convolution(kernel, source, ["blue", "red", "green"])
    assert np.array_equal(turned, kernel[:, :, [2, 0, 1]])
    four = adapt_first_convolution(kernel, source, ["red", "green", "blue", "yellow"])
    np.testing.assert_allclose(four[:, :, :3], kernel * 0.75, rtol=1e-6)
    np.testing.assert_allclose(four[:, :, 3], kernel.mean(axis=2) * 0.75, rtol=1e-6)
    assert four.dtype == np.float32
    for target in (["green"], ["yellow", "green"], ["red", "green", "blue", "yellow"]):
        grey = adapt_first_convolution(kernel, source, target).sum(axis=2)
        if set(target) >= set(source) or target == ["yellow"]:
            np.testing.assert_allclose(grey, kernel.sum(axis=2), rtol=1e-5)
    with pytest.raises(ModelError, match="3 planes"):
        adapt_first_convolution(kernel, ["green"], ["red"])


def test_stock_weights_give_the_features_of_the_stock_network(tmp_path):
    stock = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for layer in stock.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.3, bias.shape)])
    stock.save_weights(tmp_path / "stock.weights.h5")
    network = classifier(("red", "green", "blue"), input_size=64)
    load_weights(network, ("red", "green", "blue"), str(tmp_path / "stock.weights.h5"))
    images = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    # The border differs: the stock network pads with the mean colour, this one with black, which is what tiles have.
    centre = np.s_[:, 3:-3, 3:-3]
    expected = keras.Model(stock.input, stock.get_layer("conv1_bn").output)(
        keras.applications.resnet50.preprocess_input(images.copy())
    ).numpy()
    found = keras.Model(network.input, network.get_layer("conv1_bn").output)(images).numpy()
    np.testing.assert_allclose(found[centre], expected[centre], rtol=1e-3, atol=1e-2)
    deep = network.get_layer("conv3_block2_2_bn").get_weights()[2]
    bias = stock.get_layer("conv3_block2_2_conv").get_weights()[1]
    np.testing.assert_allclose(deep, -bias, atol=1e-6)


def test_weights_of_another_model_folder_are_taken_by_colour(model, folder):
    other = classifier(("red", "green", "blue"), "softmax", SIZE)
    load_weights(other, ("red", "green", "blue"), str(folder / "model.keras"))
    kernel = model.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_allclose(
        other.get_layer("conv1_conv").get_weights()[0],
        np.stack([kernel[:, :, 1], kernel[:, :, 0], kernel.mean(axis=2)], axis=2) * np.float32(2 / 3),
        rtol=1e-6,
    )
    for name in ("conv4_block3_2_conv", "conv4_block3_2_bn", "embedding", "location"):
        for mine, theirs in zip(other.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True):
            assert np.array_equal(mine, theirs)


def test_weights_that_do_not_fit_are_refused(folder, tmp_path):
    network = classifier(("green",), input_size=SIZE, units=64)
    with pytest.raises(ModelError, match="embedding"):
        load_weights(network, ("green",), str(folder / "model.keras"))
    with pytest.raises(ModelError, match=r"no such file: nowhere\.keras"):
        load_weights(network, ("green",), "nowhere.keras")
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(ModelError, match=r"neither a \.keras nor a \.h5 file"):
        load_weights(network, ("green",), str(tmp_path / "weights.txt"))
    (tmp_path / "broken.h5").write_text("no HDF5")
    with pytest.raises(ModelError, match="broken"):
        load_weights(network, ("green",), str(tmp_path / "broken.h5"))


def test_folding_batch_norm_changes_no_output(model, tiles):
    folded = fold_batch_norm(model)
    assert not any(isinstance(layer, FusedBatchNormalization) for layer in folded.layers)
    expected = keras.Model(model.input, model.get_layer("pool").output)(tiles).numpy()
    found = keras.Model(folded.input, folded.get_layer("pool").output)(tiles).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_model_folder_loads_to_the_same_outputs(model, folder, tiles):
    loaded, config, decision = load_folder(folder)
    np.testing.assert_allclose(loaded(tiles), model(tiles), rtol=1e-6)
    assert config["channels"] == ["green", "red"]
    assert decision["thresholds"]["Nucleoplasm"] == 0.06


@pytest.mark.parametrize("name", ["model.keras", "config.json", "thresholds.json"])
def test_a_changed_or_missing_file_of_a_model_folder_is_refused(folder, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    check_folder(copy)
    with open(copy / name, "ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=name):
        load_folder(copy)
    (copy / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_folder(copy)
    (copy / "checksums.json").unlink()
    with pytest.raises(ModelError, match=r"checksums\.json"):
        load_folder(copy)


def test_loading_runs_no_class_named_in_the_file(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with zipfile.ZipFile(folder / "model.keras") as source, zipfile.ZipFile(copy / "model.keras", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps({"module": "os", "class_name": "system", "config": "exit 1"}).encode()
            target.writestr(name, content)
    write_checksums(copy, ("model.keras", "config.json", "thresholds.json"))
    loaded, _, _ = load_folder(copy)
    assert type(loaded.get_layer("conv1_conv")) is keras.layers.Conv2D


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(NoGpuError, match="sees no GPU"):
        select_device("required")
    with pytest.raises(NoGpuError, match="sees no GPU"):
        select_device("required", gpus=2)
    strategy, name = select_device("auto", gpus=2)
    assert (strategy.num_replicas_in_sync, name) == (1, "CPU")
    with pytest.raises(ModelError, match="maybe"):
        select_device("maybe")


def test_the_first_line_names_device_precision_and_batch(caplog):
    caplog.set_level("INFO", "hpaloc")
    select_device("none", precision="mixed_bfloat16", batch_size=24)
    assert f"device: CPU, all cores; precision mixed_bfloat16; 24 cells per step; TensorFlow {tf.__version__}" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("capability", "cuda", "works"),
    [((9, 0), "12.3", True), ((10, 0), "12.3", False), ((12, 0), "12.5.1", False), ((12, 0), "12.8.0", True)],
)
def test_a_gpu_too_new_for_tensorflow_is_an_error(capability, cuda, works):
    if works:
        check_capability("card", capability, cuda)
        return
    with pytest.raises(NoGpuError, match=rf"card has compute capability {capability[0]}\.0.*built with CUDA {cuda}"):
        check_capability("card", capability, cuda)


def test_a_gpu_or_a_tensorflow_that_says_nothing_is_used():
    check_capability("card", None, "12.3")
    # The build for CPUs names no version of CUDA.
    if not tf.sysconfig.get_build_info()["is_cuda_build"]:
        check_capability("card", (12, 0))


def test_precision_is_checked_and_put_back():
    assert choose_precision("mixed_float16") == "mixed_float16"
    assert choose_precision("auto") in ("float32", "mixed_bfloat16", "mixed_float16")
    with pytest.raises(ModelError, match="float8"):
        choose_precision("float8")
    before = keras.config.dtype_policy().name
    with precision_policy("mixed_bfloat16"):
        network = classifier(("green",), input_size=SIZE)
    assert keras.config.dtype_policy().name == before
    assert network.get_layer("conv2_block1_1_conv").compute_dtype == "bfloat16"
    assert network(np.zeros((1, SIZE, SIZE, 1), np.uint8)).dtype == tf.float32


def test_the_rules_for_negative():
    probabilities = np.full((2, N_CLASSES), 0.1, np.float32)
    probabilities[1, 4] = 0.8
    probabilities[:, NEGATIVE] = 0.3
    np.testing.assert_allclose(settle_negative(probabilities, "complement")[:, NEGATIVE], [0.9, 0.2], rtol=1e-6)
    np.testing.assert_allclose(settle_negative(probabilities, "network")[:, NEGATIVE], [0.3, 0.3], rtol=1e-6)
    np.testing.assert_allclose(settle_negative(probabilities, "mean")[:, NEGATIVE], [0.6, 0.25], rtol=1e-6)
    assert probabilities[0, NEGATIVE] == np.float32(0.3)
    with pytest.raises(ModelError, match="least"):
        settle_negative(probabilities, "least")


def test_label_sets_fall_back_on_negative():
    probabilities = np.zeros((3, N_CLASSES))
    probabilities[0, [0, 16]] = 0.6
    probabilities[1, NEGATIVE] = 0.9
    probabilities[2, 5] = 0.45
    thresholds = np.full(N_CLASSES, 0.5)
    thresholds[NEGATIVE] = np.inf
    assert call_labels(probabilities, thresholds) == [(0, 16), (NEGATIVE,), (NEGATIVE,)]
    assert call_labels(probabilities, None) == [(0,), (NEGATIVE,), (5,)]


def test_the_eight_views_are_the_dihedral_group():
    image = np.arange(9).reshape(1, 3, 3, 1)
    views = [dihedral_view(image, view).numpy().tobytes() for view in range(8)]
    turns = [np.rot90(base, k, (1, 2)).tobytes() for base in (image, image[:, :, ::-1]) for k in range(4)]
    assert len(set(views)) == 8
    assert set(views) == set(turns)
    assert views[0] == image.tobytes()


def test_averaging_over_eight_views_forgets_the_orientation(model, tiles):
    forward = averaged(model, 8)
    probabilities, embeddings = forward(tiles)
    assert embeddings.shape == (3, 512)
    turned = forward(np.ascontiguousarray(np.rot90(tiles, 1, (1, 2))[:, :, ::-1]))
    np.testing.assert_allclose(turned[0], probabilities, rtol=1e-3, atol=1e-5)
    mean = np.mean([model(dihedral_view(tiles, view)).numpy() for view in range(8)], axis=0)
    np.testing.assert_allclose(probabilities, mean, rtol=1e-3, atol=1e-5)
    assert np.abs(model(tiles).numpy() - probabilities).max() > 1e-4
    with pytest.raises(ModelError, match="9"):
        averaged(model, 9)


def test_the_fully_convolutional_twin_gives_the_outputs_of_the_classifier_on_tiles(model, tiles):
    twin = FullyConvolutionalResNet50(model)
    maps = twin(tiles).numpy()
    assert maps.shape == (3, 1, 1, N_CLASSES)
    np.testing.assert_allclose(maps[:, 0, 0], model(tiles).numpy(), rtol=1e-4, atol=1e-6)
    kernel, bias = model.get_layer("location").get_weights()
    model.get_layer("location").set_weights([kernel * 0.5, bias + 1])
    changed = twin(tiles).numpy()[:, 0, 0]
    np.testing.assert_allclose(changed, model(tiles).numpy(), rtol=1e-4, atol=1e-6)
    assert np.abs(changed - maps[:, 0, 0]).max() > 1e-3
    model.get_layer("location").set_weights([kernel, bias])


def test_the_twin_takes_images_of_any_size_and_shape():
    network = classifier(("green", "red"), "softmax", 64)
    stir(network)
    twin = FullyConvolutionalResNet50(network)
    assert twin.window == 2
    image = np.random.default_rng(1).integers(0, 256, (150, 97, 2), dtype=np.uint8)
    assert twin(image[None]).shape == (1, 4, 3, N_CLASSES)
    maps = twin.class_activation_maps(image)
    assert maps.shape == (150, 97, N_CLASSES)
    np.testing.assert_allclose(maps.sum(axis=2), 1, atol=1e-4)
    for wrong in (image[:60], image[..., :1]):
        with pytest.raises(ModelError, match="shape"):
            twin.class_activation_maps(wrong)


def test_activation_maps_follow_what_moves_in_the_image(model):
    twin = FullyConvolutionalResNet50(model)
    image = np.zeros((640, 512, 2), np.uint8)
    patch = np.random.default_rng(2).integers(0, 256, (64, 64, 2), dtype=np.uint8)
    places = []
    dark = twin.class_activation_maps(image)
    for corner in (224, 352):
        shown = image.copy()
        shown[corner : corner + 64, 224:288] = patch
        change = np.abs(twin.class_activation_maps(shown) - dark).sum(axis=2)
        rows, columns = np.indices(change.shape)
        places.append([(change * rows).sum() / change.sum(), (change * columns).sum() / change.sum()])
    (first_row, first_column), (second_row, second_column) = places
    assert second_row - first_row == pytest.approx(128, abs=24)
    assert second_column == pytest.approx(first_column, abs=1)
    assert first_row == pytest.approx(256, abs=48)


def test_the_theoretical_receptive_field_is_that_of_resnet50():
    network = classifier(("green",), "sigmoid", 224)
    assert theoretical_receptive_field(network) == 483
    assert theoretical_receptive_field(network, pooled=True) == 675


def test_the_back_propagated_receptive_field_lies_in_the_theoretical_one(model):
    gradient, (y0, x0, y1, x1) = propagated_receptive_field(model, 640)
    # Keras strides in the first 1 × 1 convolution of a block, so no position of an even grid is left out.
    assert (y1 - y0, x1 - x0) == (483, 483)
    assert gradient.sum() == pytest.approx(1)
    middle = gradient[(y0 + y1) // 2, (x0 + x1) // 2]
    assert middle > 100 * gradient[y0, x0] > 0


def test_the_effective_receptive_field_is_smaller_than_the_theoretical_one(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 512, 512, 2), dtype=np.uint8)
    found = effective_receptive_field(model, images)
    assert found["mass"].shape == (512, 512)
    assert found["mass"].sum() == pytest.approx(1)
    assert 0 < found["radius_50"] < found["radius_95"] < 483 / 2
    with pytest.raises(ModelError, match="no gradient"):
        effective_receptive_field(model, images[:0])


def test_a_temporary_folder_that_cannot_be_written_is_named_and_not_the_model(tmp_path, monkeypatch):
    folder = write_model_folder(tmp_path / "m", classifier(("green",), "sigmoid", 32), ("green",), "sigmoid", 32)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(
        OSError, match=r"cannot be unpacked into the temporary folder .*; set TMPDIR to a writable folder"
    ):
        load_folder(folder)
