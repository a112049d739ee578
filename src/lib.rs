//! wip
pub mod cli;
pub mod config;
pub mod daemon;
pub mod http;
pub mod inventory;
pub mod mac;
pub mod source;
pub mod telemetry;
