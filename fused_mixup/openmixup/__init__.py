from .alignment import alignmix
from .analytic import fmix, gridmix, smoothmix
from .attention import attentivemix, mixpro, smmix, tokenmix, transmix
from .boxes import cutmix, mixup, resizemix, saliencymix, tla
from .puzzle import puzzlemix
from .salient import guidedmix, snapmix
