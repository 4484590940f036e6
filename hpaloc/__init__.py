"""Subcellular location of a stained protein in every cell of Human Protein Atlas style images."""

import os

__version__ = "0.2.0"

# On CPUs without instructions for neural networks (AVX512-VNNI and the like), TensorFlow leaves oneDNN off unless
# this is set before it is loaded. Without oneDNN, a training step reads all weights again for each image.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
