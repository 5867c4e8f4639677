"""Where an image or a network has something to see: the maps that guided mixes take.

input_gradient      norm of the loss's gradient at each pixel       PuzzleMix, GuidedMixup
spectral_residual   what is unusual in an image's spectrum          SaliencyMix, GuidedMixup
ClassAttention      attention of a ViT's class token                TransMix, TokenMix, MixPro
activation_maps     class activation of a convolutional network     SnapMix
"""

from .activation import activation_maps, class_activation
from .attention import ClassAttention
from .filters import gaussian_blur, spectral_residual
from .gradient import input_gradient

__all__ = [
    "ClassAttention",
    "activation_maps",
    "class_activation",
    "gaussian_blur",
    "input_gradient",
    "spectral_residual",
]
