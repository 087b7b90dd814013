//! One file for each command: its arguments (whose doc comments are its help) and its code.

pub mod completions;
pub mod config;
pub mod disable;
pub mod down;
pub mod enable;
pub mod health;
pub mod install;
pub mod keep_log;
pub mod log;
pub mod man;
pub mod ps;
pub mod restart;
pub mod uninstall;
pub mod up;
