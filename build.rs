//! Builds the program that is every container's first process, and hands it to the gateway to carry: the two are always of one make, and there
//! is one file to install.
//!
//! It is another program than the gateway: static, so that it runs in an image without a libc, and small. Cargo has no stable way to say so
//! of a dependency, hence the call.

#![allow(clippy::expect_used, reason = "a build that cannot go on ends, and says why")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    for path in ["init/src", "init/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = env::var("TARGET").expect("cargo sets it");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo.args(["build", "--locked", "--package", "innkeeper-init", "--bin", "innkeeper-init", "--profile", "init"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(out.join("init"));
    // Meant for the gateway's own compilation, clippy's stand-in for the compiler among them.
    for inherited in ["RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER", "CARGO_MAKEFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(inherited);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"].join("\x1f"));
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "innkeeper-init does not build");
    let program = out.join("init").join(target).join("init/innkeeper-init");
    println!("cargo::rustc-env=INNKEEPER_INIT={}", program.display());
}
