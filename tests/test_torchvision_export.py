"""What can be exported of a torchvision detector over a tree: the detector inside, to ONNX, as torchvision has it."""

import numpy as np
import pytest
import torch
from test_torchvision import TREE, tiny
from wordtree_torchvision import attach


@pytest.mark.filterwarnings("ignore")  # of tracing, many
@pytest.mark.parametrize(
    "kind", ["ssd", *(pytest.param(one, marks=pytest.mark.slow) for one in ("fasterrcnn", "fcos", "retinanet"))]
)
def test_the_detector_inside_goes_to_onnx_and_finds_the_same_boxes(kind, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    inside = attach(tiny(kind, 1), TREE).eval().model
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(inside, ([image],), tmp_path / "inside.onnx", dynamo=False, opset_version=17)
    session = onnxruntime.InferenceSession(tmp_path / "inside.onnx")
    given = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        (wanted,) = inside([image])
    assert len(wanted["boxes"])
    for name, found in zip(wanted, given, strict=True):
        np.testing.assert_allclose(found, wanted[name].numpy(), atol=1e-3)
