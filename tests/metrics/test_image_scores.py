import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from kyvo.common.errors import InputError
from kyvo.common.image_files import read_image
from kyvo.metrics import ImagePair, score_images
from kyvo.metrics.images import l2, ssim


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed, height=20, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey_pair(generated_HW, groundtruth_HW):
    """Two grey images as the metrics take them."""
    return ImagePair(*(np.stack([image] * 3, -1) for image in (generated_HW, groundtruth_HW)))


def closed_form_ssim(x, y, data_range):
    """SSIM by its formula with 7 x 7 windows, unbiased variances, borders cut."""
    mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
    scale = 49 / 48
    var_x = scale * (uniform_filter(x * x, 7) - mean_x**2)
    var_y = scale * (uniform_filter(y * y, 7) - mean_y**2)
    covariance = scale * (uniform_filter(x * y, 7) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (top / bottom)[3:-3, 3:-3].mean()


def test_similarity_equals_its_formulas():
    rng = np.random.default_rng(0)
    generated, truth = rng.uniform(0.2, 0.9, (2, 20, 24))
    pair = grey_pair(generated, truth)
    data_range = generated.max() - generated.min()
    assert ssim(pair) == pytest.approx(closed_form_ssim(generated, truth, data_range), abs=1e-5)
    assert l2(pair) == pytest.approx(np.square(generated - truth).sum() / 480, rel=1e-5)


def test_identity_and_constant_images():
    constant = np.full((16, 16), 0.5)
    for image in (np.random.default_rng(1).uniform(size=(16, 16)), constant):
        pair = grey_pair(image, image)
        assert ssim(pair) == pytest.approx(1, abs=1e-6)
        assert l2(pair) == pytest.approx(0, abs=1e-12)
    assert l2(grey_pair(constant, np.full((16, 16), 0.25))) == pytest.approx(0.0625)


def test_pairs_are_matched_by_name_not_by_order(tmp_path):
    first, second = noise(1), noise(2)
    save(tmp_path / "generated/generated_b.png", first)
    save(tmp_path / "generated/generated_c.png", second)
    save(tmp_path / "true/ground_truth_b.png", first)
    save(tmp_path / "true/c.png", second)
    save(tmp_path / "true/a.png", second)
    scores = score_images(tmp_path / "generated", tmp_path / "true")
    assert list(scores.pairs) == ["b", "c"]
    assert scores.mean("ssim") == pytest.approx(1)
    assert "1 true images have no generated one" in scores.summary()


def test_true_images_are_resized_to_the_generated_size(tmp_path):
    smooth = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)
    save(tmp_path / "true/a.png", smooth)
    save(tmp_path / "generated/a.png", np.asarray(Image.fromarray(smooth).resize((32, 32))))
    scores = score_images(tmp_path / "generated", tmp_path / "true")
    assert scores.mean("l2") < 1e-4


def test_written_values_are_the_means_of_the_pairs(tmp_path):
    for seed, name in enumerate(["a", "b"]):
        save(tmp_path / f"generated/generated_{name}.png", noise(seed))
        save(tmp_path / f"true/{name}.png", noise(seed + 10))
    score_images(tmp_path / "generated", tmp_path / "true").write(tmp_path)
    written = json.loads((tmp_path / "ssim_l2.json").read_text())
    mean = np.mean([image["l2"] for image in written["images"].values()])
    assert written["l2"] == pytest.approx(mean)
    assert f"L2-loss: {mean:.6f}" in (tmp_path / "ssim_l2.txt").read_text()


def test_grey_and_transparent_images_are_read_as_rgb(tmp_path):
    save(tmp_path / "grey.png", np.full((8, 8), 255, np.uint8))
    save(tmp_path / "alpha.png", np.full((8, 8, 4), 255, np.uint8))
    for name in ("grey.png", "alpha.png"):
        assert (read_image(tmp_path / name) == 255).all()


def test_faults_are_refused(tmp_path):
    with pytest.raises(InputError, match="no images"):
        score_images(tmp_path / "nowhere", tmp_path)
    save(tmp_path / "generated/generated_a.png", noise(1))
    save(tmp_path / "true/b.png", noise(1))
    with pytest.raises(InputError, match="no image for 1 of 1 generated ones: a"):
        score_images(tmp_path / "generated", tmp_path / "true")
    save(tmp_path / "generated/a.png", noise(1))
    with pytest.raises(InputError, match="have the same name"):
        score_images(tmp_path / "generated", tmp_path / "true")


def test_unreadable_images_are_refused(tmp_path):
    save(tmp_path / "whole.png", noise(1, 64, 64))
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    for name in ("cut.png", "text.png"):
        with pytest.raises(InputError, match=f"{name}: not readable"):
            read_image(tmp_path / name)
    save(tmp_path / "tiny.png", noise(1, 6, 9))
    with pytest.raises(InputError, match="9 x 6 pixels"):
        ImagePair.read(tmp_path / "tiny.png", tmp_path / "whole.png")


def test_true_images_may_be_in_folders_of_environments(tmp_path):
    for seed, environment in enumerate(("park", "livingroom")):
        folder = tmp_path / "true" / f"output-{environment}-large-10K-6" / "images"
        save(folder / "World_1.png", noise(seed))
        save(tmp_path / "made" / f"generated_World_1_{environment}.png", noise(seed))
    scores = score_images(tmp_path / "made", tmp_path / "true")
    assert sorted(scores.pairs) == ["World_1_livingroom", "World_1_park"]
    assert (scores.mean("ssim"), scores.mean("l2")) == pytest.approx((1, 0))
