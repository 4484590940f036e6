"""The batches of each epoch, in an order that a restart repeats."""

import tensorflow as tf

from hpaloc.training.cache import Reader


class RestartableEpochs:
    """The training batches, shuffled by seed and epoch alone, so that a resumed run has the same batches.

    read: gives the examples in the order of a seed
    """

    def __init__(self, read: Reader, count: int, batch_size: int, seed: int) -> None:
        self.epoch = 0
        self.batch_size = min(batch_size, count)
        # The epoch is read whenever Keras starts to iterate; a seed fixed in the graph would start again on resuming.
        epochs = tf.data.Dataset.from_generator(
            lambda: iter([self.epoch]), output_signature=tf.TensorSpec((), tf.int64)
        )
        shuffled = epochs.flat_map(
            lambda epoch: read(seed * 1_000_003 + epoch).batch(self.batch_size, drop_remainder=True)
        )
        self.steps = count // self.batch_size
        self.batches = shuffled.apply(tf.data.experimental.assert_cardinality(self.steps)).prefetch(tf.data.AUTOTUNE)
