from __future__ import annotations

import onnx
import pytest

from onnxnoise.model.layers.names import layer_name

TENSORS = [
    # torch, both exporters
    ("layer1.0.conv1.weight", "layer1.0.conv1"),
    ("layer1.0.bn1.running_var", "layer1.0.bn1"),
    ("conv1.weight_bias", "conv1"),
    (
        "encoder.layers.encoder_layer_6.self_attention.in_proj_weight",
        "encoder.layers.encoder_layer_6.self_attention.in_proj",
    ),
    ("features.5.3.layer_scale", "features.5.3.layer_scale"),
    ("class_token", "class_token"),
    ("encoder.pos_embedding", "encoder.pos_embedding"),
    ("/td/Transpose_output_0", "td"),
    ("/pr/Unsqueeze_output_0", "pr"),
    # tf2onnx of tf.keras 2 and Keras 3
    ("model/conv2d_7/Conv2D/ReadVariableOp:0", "model/conv2d_7"),
    ("model/conv2d_18/BiasAdd_weights_fused_bn", "model/conv2d_18"),
    ("model/batch_normalization_9/FusedBatchNormV3/ReadVariableOp_1:0", "model/batch_normalization_9"),
    ("model/conv2d_1/Conv2D/ReadVariableOp:0_quantized", "model/conv2d_1"),
    ("model/conv2d_1/Conv2D/ReadVariableOp:0_DequantizeLinear_Output", "model/conv2d_1"),
    ("model/bn3/Const:0", "model/bn3"),
    ("model/bn7/Reshape_2:0", "model/bn7"),
    ("model/td/Tensordot/ReadVariableOp:0", "model/td"),
    ("model/ln/mul/ReadVariableOp:0", "model/ln"),
    ("model/dw/depthwise/ReadVariableOp:0", "model/dw"),
    ("model/ct/conv2d_transpose/ReadVariableOp:0", "model/ct"),
    ("model/conv2d_transpose/conv2d_transpose/ReadVariableOp:0", "model/conv2d_transpose"),
    ("model/separable_conv2d_1/separable_conv2d/ReadVariableOp_1:0", "model/separable_conv2d_1"),
    ("model/Conv_1/Conv2D/ReadVariableOp:0", "model/Conv_1"),
    ("functional_1/conv2d_7_1/convolution/ReadVariableOp:0", "functional_1/conv2d_7_1"),
    ("functional_1/conv2d_7_1/convolution/merged_input:0", "functional_1/conv2d_7_1"),
    ("functional_1/batch_normalization_7_1/batchnorm/mul:0", "functional_1/batch_normalization_7_1"),
    ("functional_1/conv2d_9_1/Squeeze:0", "functional_1/conv2d_9_1"),
    ("functional_1/dense_1/Cast/ReadVariableOp:0", "functional_1/dense_1"),
    ("conv2d_1/kernel", "conv2d_1"),
    # tensorpack and other TensorFlow 1
    ("conv0/W/read:0", "conv0"),
    ("res2.0/bn1/mean/EMA/read:0", "res2.0/bn1"),
    ("res2.0/short/b/read:0", "res2.0/short"),
    ("conv0/Conv2D_weights:0", "conv0"),
    ("MobilenetV1/Conv2d_0/BatchNorm/gamma/read:0", "MobilenetV1/Conv2d_0/BatchNorm"),
    ("MobilenetV1/Conv2d_0/weights_quant/FakeQuantWithMinMaxVars", "MobilenetV1/Conv2d_0"),
    # MXNet, caffe2, ONNX Runtime
    ("resnetv15_stage1_conv0_weight", "resnetv15_stage1_conv0"),
    ("gpu_0/res2_0_branch2a_w_0", "gpu_0/res2_0_branch2a"),
    ("ConvBnFusion_W_layer1.0.conv1.weight", "layer1.0.conv1"),
]

NODES = [
    (["onnx::Conv_259", "onnx::Conv_260"], "/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
    (["onnx::Conv_259_quantized"], "/features/features.1/features.1.0/block/block.5/Conv", "features.1.0.block.5"),
    (["onnx::Conv_1702", "ConvAddFusion_Add_B_onnx::Add_1705"], "/Conv_3", "Conv_3"),
    (["onnx::MatMul_2417", "onnx::Add_2418"], "/MatMul/MatMulAddFusion", "MatMul"),
    (["const_fold_opt__203"], "model/dw/depthwise", "model/dw"),
    (["ConstantFolding/model/conv2d/Conv2D/ReadVariableOp-folded-0"], "model/conv2d/Conv2D", "model/conv2d"),
    (["ConstantFolding/fold-folded-0", "ConstantFolding/fold-folded-0"], "block1/conv/Conv2D", "block1/conv"),
    (["_v_198", "_v_199"], "model/conv2d_3/BiasAdd", "model/conv2d_3"),
    (["val_14"], "node_MatMul_3", "node_MatMul_3"),
    (["const_12", "const_13"], "node_Add_18", "node_Add_18"),
    (["t85"], "", "t85"),
    (["s", "t", "m", "var"], "norm", "norm"),
    (["w", "stem.bias"], "", "stem"),
    ([], "/layer1/layer1.0/bn1/BatchNormalization", "layer1.0.bn1"),
    ([], "", "Conv"),
    (["0123456789abcdef0123"], "conv", "conv"),
    (["weird\nname"], "node", "node"),
]


@pytest.mark.parametrize(("tensor", "name"), TENSORS)
def test_the_layer_that_a_tensor_names(tensor: str, name: str) -> None:
    assert layer_name([tensor], onnx.helper.make_node("Conv", [], [], name="a node")) == name


@pytest.mark.parametrize(("tensors", "node", "name"), NODES)
def test_the_node_where_no_tensor_shows_it(tensors: list[str], node: str, name: str) -> None:
    assert layer_name(tensors, onnx.helper.make_node("Conv", [], [], name=node)) == name
