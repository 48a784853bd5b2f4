"""What a layer should aim at once the layers before it are quantized, and the bias that goes with it.

Let t be what the float network wants at the layer's output and x what the quantized network feeds it. Least squares
gives the weights and bias that come closest, with covariances (centred second moments) C:

    W' = C_tx C_xx^-1,    b' = E[t] - W' E[x]

Computed as a step from the trained weights, `W' = W + (C_tx - W C_xx) (C_xx + d I)^-1`, the damping d pulls towards W
instead of zero, so that directions which calibration never saw keep their trained weights. It is relative to each
column's power, since channels may come in any unit. A channel that is nearly always 0 has little power too, but not
another unit: the trained weights that read it are no larger, so it contributes next to nothing, and what its few values
happen to agree with would be fitted by huge weights. So no column's power counts for less than that with which its
trained weights would contribute a hundredth of the mean. Rounding then acts on C_xx:
every error in the mean is the bias's business (bias correction; Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2, here measured on the quantized prefix).
"""

import numpy as np

from lowbit.calibration.moments import Moments
from lowbit.quantization.solving.problem import Floats, damped, inverse_factor

LEAST = 0.01  # of the mean contribution, that a column's damping is made for
MOST = 1e6  # times the mean power, where trained weights are next to nothing


def refit_weights(weights: Floats, moments: Moments, *, damping: float = 0.03) -> Floats:
    """Weights [groups, rows, columns] that best give the wanted outputs from the quantized inputs."""
    step = (moments.cross - weights.astype(np.float32) @ moments.second).astype(np.float32)
    power = np.einsum("gkk->gk", moments.second)
    size = np.square(weights).mean(axis=1)
    wanted = LEAST * (power * size).mean(axis=1, keepdims=True) / np.maximum(size, np.finfo(np.float32).tiny)
    wanted = np.minimum(wanted, MOST * power.mean(axis=1, keepdims=True))
    second = damped(moments.second, damping)
    np.einsum("gkk->gk", second)[...] += damping * np.maximum(wanted - power, 0)
    factor = inverse_factor(second)
    return np.asarray(weights + (step @ factor.transpose(0, 2, 1)) @ factor)


def refit_bias(weights: Floats, moments: Moments) -> Floats:
    """Bias [groups, rows] with which these (rounded) weights have the wanted mean at every output channel."""
    return np.asarray(moments.output_mean - np.einsum("grk,gk->gr", weights, moments.input_mean))
