"""Fourier coefficients, colours and spectra against their definitions."""

import numpy as np
import pytest
import torch

from modelassay.core.errors import ShapeError, TooFewTokensError, UnsupportedModelError
from modelassay.core.randomness import generator
from modelassay.observe.visualize.colour import LUCID_COLOURS, RGB, ColourAxes, colour_axes
from modelassay.observe.visualize.magnitude_constrained import MagnitudeConstrained
from modelassay.observe.visualize.parametrisation import FOURIER, Fourier, Parametrisation, Pixels
from modelassay.observe.visualize.spectrum import (
    frequencies,
    natural_spectrum,
    power_law,
    spectrum_of,
)

SIZES = [(128, 128), (17, 24), (16, 23), (5, 7)]


def natural_like(n=8, size=(32, 32), seed=0, decay=1.0):
    """Noise with correlated colours and a falling spectrum."""
    z = torch.randn(n, 3, *size, generator=generator(seed))
    z = torch.fft.irfft2(torch.fft.rfft2(z) * power_law(size, decay), s=size)
    return torch.sigmoid(LUCID_COLOURS.correlated(z / z.std()))


def test_start_has_the_published_numbers():
    numbers = FOURIER.start((128, 128), [generator(s) for s in range(4)])
    assert float(numbers.std()) == pytest.approx(0.01, rel=0.01)
    assert float(FOURIER.signal(numbers, (128, 128)).std()) == pytest.approx(0.0188, abs=0.0008)
    image = FOURIER.images(numbers, (128, 128))
    assert float(image.mean()) == pytest.approx(0.4996, abs=0.0028)


@pytest.mark.parametrize("size", SIZES)
def test_parseval_holds(size):
    images = natural_like(2, size)
    numbers = FOURIER.numbers(images)
    signal = FOURIER.signal(numbers, size)
    energy = (numbers.square().sum(-1) * power_law(size, 1.0).square()).sum((1, 2))
    # Columns other than the first (and the last of an even width) stand for two frequencies.
    twice = torch.full((size[1] // 2 + 1,), 2.0)
    twice[0] = 1
    if size[1] % 2 == 0:
        twice[-1] = 1
    energy = (numbers.square().sum(-1) * power_law(size, 1.0).square() * twice).sum((1, 2, 3))
    assert torch.allclose(energy, 16 * signal.square().sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parametrisation", [FOURIER, Pixels(), Fourier(decay=1.5, colours=RGB)])
def test_numbers_are_the_inverse_of_images(size, parametrisation):
    images = natural_like(2, size)
    again = parametrisation.images(parametrisation.numbers(images), size)
    assert torch.allclose(images, again, atol=1e-4)
    assert isinstance(parametrisation, Parametrisation)


def test_the_scale_is_the_inverse_of_the_frequency_in_cycles_a_pixel():
    size, decay = (6, 8), 1.3
    scale = power_law(size, decay)
    for y in range(6):
        for x in range(5):
            fy = (y if y < 3 else y - 6) / 6
            frequency = max((fy**2 + (x / 8) ** 2) ** 0.5, 1 / 8)
            assert float(scale[y, x]) == pytest.approx(frequency**-decay, rel=1e-5)


def test_each_image_begins_with_its_own_generator():
    together = FOURIER.start((16, 16), [generator(1), generator(2)])
    alone = FOURIER.start((16, 16), [generator(2)])
    assert torch.equal(together[1], alone[0])


def test_colours_have_the_published_norm_and_covariance():
    rows = torch.tensor(LUCID_COLOURS.rows)
    assert float(rows.norm(dim=0).max()) == pytest.approx(0.461952, abs=1e-6)
    matrix = LUCID_COLOURS.matrix
    # The table that xplique and Horama use for row vectors is the transpose.
    table = [
        [0.56282854, 0.58447580, 0.58447580],
        [0.19482528, 0, -0.19482528],
        [0.04329450, -0.10823626, 0.06494176],
    ]
    assert torch.allclose(matrix.T, torch.tensor(table), atol=1e-6)
    z = torch.randn(1, 3, 500, 500, generator=generator(0))
    seen = LUCID_COLOURS.correlated(z)[0].flatten(1)
    assert torch.allclose(torch.cov(seen), matrix @ matrix.T, atol=5e-3)
    assert torch.allclose(LUCID_COLOURS.independent(LUCID_COLOURS.correlated(z)), z, atol=1e-4)


def test_axes_of_images_are_a_root_of_their_covariance():
    images = natural_like()
    axes = torch.tensor(colour_axes(images).rows)
    assert torch.allclose(axes @ axes.T, torch.cov(images.movedim(1, 0).flatten(1)), atol=1e-6)
    lengths = axes.norm(dim=0)
    assert lengths[0] > lengths[1] > lengths[2]
    across = (axes.T @ axes).fill_diagonal_(0)
    assert float(across.abs().max()) < 1e-6
    assert bool((axes.gather(0, axes.abs().argmax(0, keepdim=True)) > 0).all())


def test_axes_of_grey_images_are_refused():
    grey = torch.rand(4, 1, 8, 8, generator=generator(0)).expand(-1, 3, -1, -1)
    with pytest.raises(TooFewTokensError, match="vary in three dimensions"):
        colour_axes(grey)
    with pytest.raises(ShapeError, match="Repeat the grey channel"):
        colour_axes(grey[:, :1])


def test_a_spectrum_finds_the_exponent_that_images_were_made_with():
    z = torch.randn(60, 3, 48, 48, generator=generator(0))
    z = torch.fft.irfft2(torch.fft.rfft2(z) * power_law((48, 48), 1.4), s=(48, 48))
    images = (0.5 + 0.05 * z / z.std()).clamp(0, 1)
    assert spectrum_of(images, RGB).decay == pytest.approx(1.4, abs=0.1)
    assert natural_spectrum((40, 40), 0.7).decay == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("size", [(32, 32), (31, 24)])
def test_a_spectrum_at_its_own_size_is_itself_and_at_another_the_same_law(size):
    measured = spectrum_of(natural_like(4, size))
    assert torch.allclose(measured.at(size), measured.magnitude, rtol=1e-3, atol=1e-5)
    law = natural_spectrum((128, 128))
    at_another = law.at((64, 96))
    expected = power_law((64, 96), 1.0)
    inside = (frequencies((64, 96)) > 0.1) & (frequencies((64, 96)) < 0.45)
    assert torch.allclose(at_another[0][inside], expected[inside], rtol=0.02)


@pytest.mark.parametrize("size", [(32, 32), (21, 30)])
def test_magnitude_constrained_images_have_the_given_spectrum_whatever_the_phases(size):
    spectrum = spectrum_of(natural_like(6, size))
    maco = MagnitudeConstrained(spectrum=spectrum)
    for scale in (1.0, 30.0):
        numbers = scale * maco.start(size, [generator(0), generator(1)])
        signal = maco.signal(numbers, size)
        assert torch.allclose(signal.mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
        assert torch.allclose(signal.std((1, 2, 3), correction=0), torch.ones(2), atol=1e-3)
        found = torch.fft.rfft2(signal, norm="ortho").abs()
        # The first column, and the last of an even width, mix a phase with its mirror image's.
        inner = slice(1, (size[1] - 1) // 2)
        ratio = found[..., inner] / spectrum.magnitude[..., inner]
        assert float(ratio.std((1, 2, 3)).max()) < 1e-3 * float(ratio.mean())


def test_phases_shifted_and_stretched_give_the_same_image():
    maco = MagnitudeConstrained()
    numbers = maco.start((24, 24), [generator(0)])
    moved = maco.images(3 * numbers + 2, (24, 24))
    assert torch.allclose(moved, maco.images(numbers, (24, 24)), atol=1e-3)


def test_magnitude_constrained_cannot_begin_with_an_image():
    with pytest.raises(UnsupportedModelError, match="must use Fourier or Pixels"):
        MagnitudeConstrained().numbers(natural_like(1))


def test_colour_axes_compare_by_value():
    assert ColourAxes(LUCID_COLOURS.rows) == LUCID_COLOURS
    assert np.linalg.matrix_rank(LUCID_COLOURS.matrix.numpy()) == 3
