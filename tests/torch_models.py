"""PyTorch networks of the kinds that people bring, small, with random weights and statistics."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import nn


class Residual(nn.Module):
    """The basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    def __init__(self, width: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(1, 5):
            first = Residual(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.Sequential(first, Residual(widths[stage], widths[stage], 1)))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(widths[4], 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class LeNet(nn.Module):
    """Its nonlinearities are functions: no module stands for them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 8, 5)
        self.fc1 = nn.Linear(8 * 4 * 4, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = nn.functional.relu(self.fc1(x.view(x.size(0), -1)))
        return nn.functional.log_softmax(self.fc2(x), dim=1)


class Inverted(nn.Module):
    """The block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        inner = 2 * inputs
        self.skips = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            nn.Sequential(
                nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()
            ),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.skips else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.features = nn.Sequential(stem, Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


class Encoder(nn.Module):
    """The way down of a U-Net, each step with a dense connection, and one step up by concatenation of what it skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._step(2, 4), self._step(6, 6), self._step(12, 8)])
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Conv2d(20, 3, 1)

    def _step(self, inputs: int, outputs: int) -> nn.Sequential:
        first, second = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=2, dilation=2)
        return nn.Sequential(first, nn.LeakyReLU(0.1), second, nn.PReLU())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skips = []
        for step in self.down:
            x = torch.cat([x, step(x)], dim=1)
            skips.append(x)
            x = self.pool(x)
        left, right = torch.split(skips[2], [12, 8], dim=1)
        return self.head(torch.cat([right, left], dim=1)), x[:, 2:9]


def vgg() -> nn.Module:
    """Blocks of convolutions with normalisation, average pooling at the end of the second."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2, 2)),
        nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        ),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.Hardtanh(0, 1),
        nn.Dropout(),
        nn.Linear(16, 5),
        nn.Softmax(dim=-1),
    )


def keywords() -> nn.Module:
    """A one-dimensional network over time."""
    return nn.Sequential(
        nn.Conv1d(10, 12, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(12, 12, 3, groups=12, dilation=2, padding=2),
        nn.Conv1d(12, 8, 1),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.AvgPool1d(3, stride=2, padding=1, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(8 * 7, 6),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.Hardsigmoid(), nn.Linear(12, 4)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (LeNet, (1, 28, 28)),
    "vgg": (vgg, (3, 12, 13)),
    "resnet18": (ResNet18, (3, 48, 40)),
    "mobilenet": (MobileNet, (3, 24, 24)),
    "encoder": (Encoder, (2, 15, 14)),
    "keywords": (keywords, (10, 52)),
    "mlp": (mlp, (20,)),
}


def build(name: str) -> tuple[nn.Module, np.ndarray]:
    """A model in inference mode with random weights and statistics, and random inputs, always the same."""
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return model, np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def outputs(model: nn.Module, x: np.ndarray) -> list[np.ndarray]:
    """What PyTorch says."""
    with torch.no_grad():
        y = model(torch.from_numpy(x))
    return [part.numpy() for part in (y if isinstance(y, tuple) else (y,))]


def export(model: nn.Module, x: np.ndarray, dynamo: bool, dynamic: bool) -> onnx.ModelProto:
    """The model as one of PyTorch's exporters writes it, for batches of any size or of one."""
    example = torch.from_numpy(x[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
            many = torch.from_numpy(x[:2]) if dynamic else example  # a batch of one would be taken for a constant
            program = torch.onnx.export(model, (many,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            return program.model_proto
        file = io.BytesIO()
        axes = {"x": {0: "batch"}} if dynamic else None
        torch.onnx.export(model, (example,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
        return onnx.load_from_string(file.getvalue())
