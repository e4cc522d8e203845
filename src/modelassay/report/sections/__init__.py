"""The sections of a report: one file each, one function a part."""
