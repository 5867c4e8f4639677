"""What the adapters to training loops share: when a mix gets its settings, how it is saved."""

from .clock import Clock
from .saved import from_json, to_json

__all__ = ["Clock", "from_json", "to_json"]
