"""The optimiser."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="hpaloc")
class FusedAdam(keras.optimizers.Adam):
    """Adam by TensorFlow's single kernel per variable.

    The results are those of ``keras.optimizers.Adam``, whose update passes over the weights a dozen times, a large part
    of a step on a CPU at batch 32.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Apply one gradient to one variable."""
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
