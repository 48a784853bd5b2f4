"""What a layer should aim at once the layers before it are quantized, and the bias that goes with it.

Let t be what the float network wants at the layer's output and x what the quantized network feeds it. Least squares
gives the weights and bias that come closest, with covariances (centred second moments) C:

    W' = C_tx C_xx^-1,    b' = E[t] - W' E[x]

Computed as a step from the trained weights, `W' = W + (C_tx - W C_xx) (C_xx + d I)^-1`, the damping d pulls towards W
instead of zero, so that directions which calibration never saw keep their trained weights. Rounding then acts on C_xx:
every error in the mean is the bias's business (bias correction; Nagel et al. 2019, "Data-free quantization through
weight equalization and bias correction", section 4.2, here measured on the quantized prefix).
"""

import numpy as np

from lowbit.calibration.moments import Moments
from lowbit.quantization.rounding import Floats, damped, inverse_factor


def refit_weights(weights: Floats, moments: Moments, *, damping: float = 0.03) -> Floats:
    """Weights [groups, rows, columns] that best give the wanted outputs from the quantized inputs."""
    step = (moments.cross - weights.astype(np.float32) @ moments.second).astype(np.float32)
    factor = inverse_factor(damped(moments.second, damping))
    return np.asarray(weights + (step @ factor.transpose(0, 2, 1)) @ factor)


def refit_bias(weights: Floats, moments: Moments) -> Floats:
    """Bias [groups, rows] with which these (rounded) weights have the wanted mean at every output channel."""
    return np.asarray(moments.output_mean - np.einsum("grk,gk->gr", weights, moments.input_mean))
