"""The operators that TensorRT's ONNX parser reads, as its makers list them for TensorRT 10.0 and
10.1, opsets 9 to 20 (https://github.com/onnx/onnx-tensorrt/blob/release/10.1-GA/docs/operators.md,
commit 96e7811). Later versions read more; these are read by all from 10.0 on, Jetson's among them.

Left out are types that no graph of ours has (BF16, FP8, INT4, UINT8) and control flow.
"""

from __future__ import annotations

from onnx import TensorProto

FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16))
INTEGERS = frozenset((TensorProto.INT32, TensorProto.INT64))
BOOL = frozenset((TensorProto.BOOL,))

_FLOATS_ONLY = """
Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose
Cos Cosh CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LayerNormalization
LeakyRelu Log LogSoftmax LRN LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization Mish
ParametricSoftplus Pow PRelu QuantizeLinear Reciprocal Resize Round ScaledTanh Selu Sigmoid Sin Sinh
Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample
"""
_NUMBERS = """
Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max
Mean Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign
SpaceToDepth Sub Sum TopK
"""
_ALL = """
Cast CastLike Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND
Identity OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu
Unsqueeze Where
"""

READ = {
    **dict.fromkeys(_FLOATS_ONLY.split(), FLOATS),
    **dict.fromkeys(_NUMBERS.split(), FLOATS | INTEGERS),
    **dict.fromkeys(_ALL.split(), FLOATS | INTEGERS | BOOL),
    **dict.fromkeys(("And", "Not", "Or", "Xor"), BOOL),
    "DequantizeLinear": frozenset((TensorProto.INT8,)),
}
"""Operator -> the types of its data."""

CONSTANT = {
    **dict.fromkeys((name for name in READ if name.startswith("Reduce")), 1),
    **dict.fromkeys(("CumSum", "Squeeze", "Unsqueeze"), 1),
    "Slice": 3,
}
"""Operator -> the place of its axes, which must be constant."""
