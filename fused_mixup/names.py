"""Names that a build may choose: those of a kernel hub replace this file (tools/hub.py)."""

NAMESPACE = "fused_mixup"  # of the ops, in torch.ops
CHOSEN = f"{NAMESPACE}_chosen"  # of those that look up what is forced
MODULES = {"CPU": "_C", "CUDA": "_C_cuda"}  # the compiled modules, by dispatch key
