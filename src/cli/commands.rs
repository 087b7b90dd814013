//! One file for each command: its arguments (whose doc comments are its help) and its code.

pub mod completions;
pub mod config;
pub mod down;
pub mod health;
pub mod log;
pub mod man;
pub mod ps;
pub mod restart;
pub mod up;
