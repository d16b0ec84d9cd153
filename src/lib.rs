//! x
pub mod cli;
pub mod config;
pub mod core;
pub mod logging;
pub mod presets;
pub mod shell;
