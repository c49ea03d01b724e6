"""The crash campaign: processes full of pods are killed and their disks made to fail; what was told is looked for."""
