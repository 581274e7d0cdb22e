"""Training the network that finds the lungs: whole slices in any window, right and left lung as two maps."""
