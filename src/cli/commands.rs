//! The commands, one file each: arguments, whose doc comments are the help, and code.

pub mod chat;
pub mod completions;
pub mod config;
pub mod disable;
pub mod doctor;
pub mod down;
pub mod enable;
pub mod health;
pub mod install;
pub mod load;
pub mod log;
pub mod man;
pub mod metrics;
pub mod models;
pub mod ps;
pub mod pull;
pub mod restart;
pub mod rm;
pub mod rotate_log;
pub mod run;
pub mod serve;
mod several;
pub mod show;
pub mod uninstall;
pub mod unload;
pub mod up;
