//! The controller's brain: the books of the whole cloud as one plain value.

pub mod change;
pub mod command;
