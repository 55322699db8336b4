"""Which numbers can be reckoned with."""

# The squares of larger numbers, and sums of those, would leave the range of floats. Such numbers
# stand for something else than a measurement: `sys.float_info.max` for what could not be measured.
LARGEST = 1e100
