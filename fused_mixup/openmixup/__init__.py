from .analytic import fmix, gridmix, smoothmix
from .boxes import cutmix, mixup, resizemix, saliencymix, tla
