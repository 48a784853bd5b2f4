import pytest

torch = pytest.importorskip("torch")

from lowbit.training.mobilenet import MobileNetV2, freeze, frozen_inference, layers, parameter_count  # noqa: E402


def test_parameters_of_the_study() -> None:
    assert parameter_count(MobileNetV2(3)) == 2_227_715
    assert parameter_count(MobileNetV2(1000)) == 3_504_872  # as published for ImageNet


def test_state_dict_names_and_shapes_are_torchvisions() -> None:
    state = MobileNetV2(1000).state_dict()
    assert len(state) == 314
    expected = {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.0.1.running_var": (32,),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.bias": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.1.num_batches_tracked": (),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.17.conv.3.running_mean": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "features.18.1.weight": (1280,),
        "classifier.1.weight": (1000, 1280),
        "classifier.1.bias": (1000,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def test_the_top_ten_layers_are_those_of_the_study() -> None:
    model = MobileNetV2(3)
    frozen = freeze(model, trained_layers=10)
    names = [name for name, _ in layers(model)]
    assert names[len(frozen) :] == [
        "features.17.conv.0.1", "features.17.conv.0.2", "features.17.conv.1.0", "features.17.conv.1.1",
        "features.17.conv.1.2", "features.17.conv.2", "features.17.conv.3", "features.18.0", "features.18.1",
        "features.18.2",
    ]  # fmt: skip
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "classifier.1.weight" in trained
    assert "features.17.conv.1.0.weight" in trained
    assert "features.17.conv.0.0.weight" not in trained


def test_frozen_statistics_do_not_move_and_trained_ones_do() -> None:
    model = MobileNetV2(3)
    frozen = freeze(model, trained_layers=10)
    frozen_inference(model, frozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(4, 3, 32, 32))
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[0] for name in moved} == {
        "features.17.conv.0.1", "features.17.conv.1.1", "features.17.conv.3", "features.18.1",
    }  # fmt: skip
