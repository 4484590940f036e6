"""The receptive field that follows from the kernels and strides of a network."""

import keras


def theoretical_receptive_field(model: keras.Model, pooled: bool = False) -> int:
    """Return the side in px of the input that can reach one position of the last map of a ResNet-50.

    With the kernels k and strides s on the longest path: r = 1 + Σ (k - 1)·j, j the product of the previous strides.
    ``pooled`` adds the average pooling after it. The sides are 483 and, pooled at 224 px, 675.
    """
    field, jump = 1, 1
    for layer in model.layers:
        if isinstance(layer, keras.layers.MaxPooling2D):
            kernel, stride = layer.pool_size[0], layer.strides[0]
        elif isinstance(layer, keras.layers.Conv2D) and not layer.name.endswith("_0_conv"):
            kernel, stride = layer.kernel_size[0], layer.strides[0]
        else:
            continue
        field += (kernel - 1) * jump
        jump *= stride
    if pooled:
        field += (model.get_layer("pool").input.shape[1] - 1) * jump
    return field
