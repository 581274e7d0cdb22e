"""The lungs of a scan, and its numbers in HU, which follow from them."""
