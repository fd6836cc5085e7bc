//! The two brains of Haar as plain values: no clock, no I/O, no randomness.
