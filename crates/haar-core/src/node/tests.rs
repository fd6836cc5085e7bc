//! Each state of a guest against each input.
