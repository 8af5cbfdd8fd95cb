//! A bucket of an S3 service, or a part of one: what backups and recordings are kept in where no disk of this machine is to have them.

mod client;
mod config;

pub use client::{Bucket, BucketError, Kind};
pub use config::{Config, Location, Place};
