"""The batches of each epoch, in an order that a restart repeats."""

import tensorflow as tf

SHUFFLE_BUFFER = 8192


class RestartableEpochs:
    """The training batches, shuffled by seed and epoch alone, so that a resumed run has the same batches."""

    def __init__(
        self,
        examples: tf.data.Dataset,
        count: int,
        batch_size: int,
        seed: int,
        cache: bool,
    ) -> None:
        self.epoch = 0
        self.batch_size = min(batch_size, count)
        examples = examples.cache() if cache else examples
        buffer = count if cache else min(count, SHUFFLE_BUFFER)
        # The epoch is read whenever Keras starts to iterate; a seed fixed in the graph would start again on resuming.
        epochs = tf.data.Dataset.from_generator(
            lambda: iter([self.epoch]), output_signature=tf.TensorSpec((), tf.int64)
        )
        shuffled = epochs.flat_map(
            lambda epoch: examples.shuffle(buffer, seed=seed * 1_000_003 + epoch).batch(
                self.batch_size, drop_remainder=True
            )
        )
        self.plain, self.cached = examples, cache
        self.steps = count // self.batch_size
        self.batches = shuffled.apply(tf.data.experimental.assert_cardinality(self.steps)).prefetch(tf.data.AUTOTUNE)
