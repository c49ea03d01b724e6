"""The crash campaign: processes full of pods are killed, their disks fail, and nothing may be missing."""
