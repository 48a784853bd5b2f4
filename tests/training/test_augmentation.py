import dataclasses

import pytest

torch = pytest.importorskip("torch")

from lowbit.training.augmentation import STRONG, STUDY, Augmentation, augment  # noqa: E402

NOTHING = Augmentation(flip=0, rotation=0, brightness=0, contrast=0, saturation=0, inversion=0)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_asked_for_changes_nothing(images: torch.Tensor) -> None:
    assert torch.allclose(augment(images, NOTHING, generator=seeded()), images, atol=1e-5)


def test_flip_and_inversion_are_exact(images: torch.Tensor) -> None:
    flipped = augment(images, dataclasses.replace(NOTHING, flip=1.0), generator=seeded())
    assert torch.allclose(flipped, images.flip(3), atol=1e-5)
    inverted = augment(images, dataclasses.replace(NOTHING, inversion=1.0), generator=seeded())
    assert torch.allclose(inverted, 1 - images, atol=1e-5)


def test_hue_and_saturation_leave_the_brightness(images: torch.Tensor) -> None:
    muted = images * 0.2 + 0.4  # so that no color leaves the range
    changed = augment(muted, dataclasses.replace(NOTHING, hue=90.0, saturation=0.3), generator=seeded())
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(
        torch.einsum("c,nchw->nhw", luma, changed), torch.einsum("c,nchw->nhw", luma, muted), atol=1e-3
    )
    assert not torch.allclose(changed, muted, atol=1e-2)


@pytest.mark.parametrize("augmentation", [STUDY, STRONG], ids=["study", "strong"])
def test_each_image_changes_its_own_way_and_again_the_same(images: torch.Tensor, augmentation: Augmentation) -> None:
    same = images[:1].expand(6, -1, -1, -1)
    changed = augment(same, augmentation, generator=seeded())
    assert changed.shape == same.shape
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert len({tuple(image.flatten()[:50].tolist()) for image in changed}) == 6
    assert torch.equal(changed, augment(same, augmentation, generator=seeded()))


def test_only_an_even_background_is_replaced(images: torch.Tensor) -> None:
    screen = torch.tensor([0.1, 0.7, 0.2])[:, None, None].expand(3, 32, 32).clone()
    screen[:, 8:24, 8:24] = torch.tensor([0.9, 0.7, 0.6])[:, None, None]
    batch = torch.stack([screen, images[0], screen, images[1]])
    changed = augment(batch, dataclasses.replace(NOTHING, background=1.0), generator=seeded())
    assert torch.allclose(changed[:, :, 11:21, 11:21], batch[:, :, 11:21, 11:21], atol=0.02)
    assert float((changed[0] - batch[0])[:, :4].abs().mean()) > 0.05
    assert torch.allclose(changed[1], batch[1], atol=1e-5)
