//! The silent core: no printing, no arguments, no environment variables, no exit.
//!
//! Dependencies point downwards only. From the top: `doctor`, `install`, `services`, `programs` and `aliases`, `logs`,
//! `config`, `runtimes`, `models` and `events`, `api`, `process` and `login`; the rest are leaves.

pub mod address;
pub mod aliases;
pub mod api;
pub mod config;
pub mod doctor;
pub mod events;
pub mod executables;
pub mod files;
pub mod helper;
pub mod install;
pub mod login;
pub mod logs;
pub mod machine;
pub mod models;
pub mod paths;
pub mod process;
pub mod programs;
pub mod runtimes;
pub mod services;
pub mod timestamp;
