"""The loops that a user would write instead: patch and reload in ONNX Runtime, in-place noise in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnxnoise.engine.hits import judge


def differences(hits: Any, logits: Any, labels: Any, layer: int, snr: float) -> Iterator[str]:
    """Each image that the two ways judge differently, with the gap of its deciding logits, relative to the largest."""
    for image in np.flatnonzero(hits != judge(logits, labels)[0]):
        own, others = logits[image, labels[image]], np.delete(logits[image], labels[image])
        gap = abs(own - others.max()) / np.abs(logits[image]).max()
        yield f"layer {layer}, SNR {snr:g}, image {image}: deciding logits differ by {gap:.1e} relative"


class ReloadLoop:
    """The oracle: weights patched in the file's own graph, a session of its own for every cell, all layers run."""

    def __init__(self, path: Path, image: str, batches: list[Any]) -> None:
        self.model = onnx.load(path)
        self.clean = {
            tensor.name: onnx.TensorProto.FromString(tensor.SerializeToString())
            for tensor in self.model.graph.initializer
        }
        self.image, self.batches = image, batches

    def __call__(self, noisy: dict[str, Any]) -> Any:
        for tensor in self.model.graph.initializer:
            if tensor.name in noisy:
                tensor.CopyFrom(onnx.numpy_helper.from_array(noisy[tensor.name], tensor.name))
        loaded = ort.InferenceSession(self.model.SerializeToString(), providers=["CPUExecutionProvider"])
        logits = np.concatenate([loaded.run(None, {self.image: batch})[0] for batch in self.batches])
        for tensor in self.model.graph.initializer:
            if tensor.name in noisy:
                tensor.CopyFrom(self.clean[tensor.name])
        return logits


def torch_loop(path: Path, batches: list[Any], form: str) -> Callable[[dict[str, Any]], Any] | None:
    """In-place noise on a PyTorch CIFAR ResNet with the file's weights; None without torch or for another architecture."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        print("  (torch is not installed: no PyTorch loop)")
        return None
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    model = torch_resnet(tensors)
    if model is None:
        print("  (not a CIFAR ResNet with torch's names: no PyTorch loop)")
        return None
    model = model.eval().to(memory_format=getattr(torch, form))
    state = dict(model.state_dict())
    images = [torch.from_numpy(batch).to(memory_format=getattr(torch, form)) for batch in batches]

    def run(noisy: dict[str, Any]) -> Any:
        with torch.inference_mode():
            clean = {name: state[name].clone() for name in noisy}
            for name, values in noisy.items():
                state[name].copy_(torch.from_numpy(values))
            logits = torch.cat([model(batch) for batch in images]).numpy()
            for name, values in clean.items():
                state[name].copy_(values)
        return logits

    return run


def torch_resnet(tensors: dict[str, Any]) -> Any:
    """The CIFAR ResNet whose initializers these are: option A (padded identity) or 1x1 convolution shortcuts."""
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    head = next((name for name in ("linear", "fc") if f"{name}.weight" in tensors), None)
    if head is None or "layer3.0.conv1.weight" not in tensors:
        return None
    projected = "layer2.0.shortcut.weight" in tensors
    bias = "conv1.bias" in tensors
    eps = 1e-3 if projected else 1e-5

    class Block(nn.Module):
        def __init__(self, width_in: int, width: int, stride: int) -> None:
            super().__init__()
            self.stride = stride
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 0 if projected and stride == 2 else 1, bias=bias)
            self.bn1 = nn.BatchNorm2d(width, eps=eps)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
            self.bn2 = nn.BatchNorm2d(width, eps=eps)
            if projected and stride == 2:
                self.shortcut = nn.Conv2d(width_in, width, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.pad(x, (0, 1, 0, 1)) if projected and self.stride == 2 else x
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(y)))))
            if self.stride == 2:
                quarter = y.shape[1] // 4
                x = self.shortcut(x) if projected else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            return F.relu(y + x)

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=bias)
            self.bn1 = nn.BatchNorm2d(16, eps=eps)
            blocks = len({name.split(".")[1] for name in tensors if name.startswith("layer1.")})
            width = 16
            for stage, out in enumerate((16, 32, 64), 1):
                stride = 1 if stage == 1 else 2
                stack = [Block(width, out, stride), *(Block(out, out, 1) for _ in range(blocks - 1))]
                setattr(self, f"layer{stage}", nn.Sequential(*stack))
                width = out
            setattr(self, head, nn.Linear(64, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return getattr(self, head)(F.avg_pool2d(x, 8).flatten(1))

    model = ResNet()
    model.load_state_dict(
        {name: torch.from_numpy(np.array(tensors[name])) for name in model.state_dict() if name in tensors},
        strict=False,
    )
    return model
