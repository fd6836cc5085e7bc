//! The world test: both brains, the real batch function, hosts that remember, faults by seed.
