from .activation import class_activation
from .filters import gaussian_blur, spectral_residual
