//! The silent core: no printing, no arguments, no environment variables, no exit.
//!
//! Dependencies point downwards only: `services` uses `runtimes`, `process`, `logs` and `api`; `runtimes` uses
//! `config`, `models` and `api`; `models` knows of runtimes only that they are some; `logs` uses `process` and `config`;
//! the rest depends on nothing above it.

pub mod api;
pub mod config;
pub mod doctor;
pub mod events;
pub mod files;
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
