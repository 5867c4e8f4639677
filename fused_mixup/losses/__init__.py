"""Soft-target losses and accuracy: functions, modules, their checks and gradients."""
