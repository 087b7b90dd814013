//! Facts and mechanisms, silent: no printing, no escape codes, no arguments, no environment variables, no exit.
//!
//! Dependencies point downwards only; `tests/architecture.rs` has the table.

pub mod address;
pub mod agents;
pub mod aliases;
pub mod api;
pub mod awake;
pub mod buffers;
pub mod cancel;
pub mod command_line;
pub mod config;
pub mod doctor;
pub mod events;
pub mod executables;
pub mod files;
pub mod gpu;
pub mod helper;
pub mod install;
pub mod json_object;
pub mod login;
pub mod logs;
pub mod machine;
pub mod models;
pub mod names;
pub mod nearest;
pub mod numbers;
pub mod order;
pub mod parallel;
pub mod paths;
pub mod pid;
pub mod process;
pub mod programs;
pub mod runtimes;
pub mod schema;
pub mod services;
pub mod sorted_map;
pub mod templates;
pub mod timestamp;
