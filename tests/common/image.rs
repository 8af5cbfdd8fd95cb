//! Images that a test makes of the one that users live in, without a network.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::process::{Command, Stdio};

use crate::gateway::{image, run_with};

/// A name for an image, which can be another one later; removed when it is dropped, with all that it has named.
pub struct Tag {
    pub name: String,
}

impl Tag {
    /// One that names an image with these lines added.
    pub fn new(recipe: &str) -> Self {
        let tag = Self { name: format!("innkeeper-test/upgrade:{:08x}", rand::random::<u32>()) };
        tag.build(recipe);
        tag
    }

    /// Has it name another.
    pub fn build(&self, recipe: &str) {
        self.build_as(&self.name, recipe);
    }

    /// Has a longer name name an image, which [`Self::point`] can make this one's.
    pub fn build_aside(&self, more: &str, recipe: &str) {
        self.build_as(&format!("{}-{more}", self.name), recipe);
    }

    fn build_as(&self, name: &str, recipe: &str) {
        // The label is how they are found again when no name is left.
        let recipe = format!("FROM {}\nLABEL innkeeper-test={}\nUSER root\n{recipe}\n", image(), self.name);
        run_with(Command::new("docker").args(["build", "--quiet", "--network", "none", "--tag", name, "-"]), recipe.as_bytes()).good();
    }

    /// Has it name what its longer name does.
    pub fn point(&self, more: &str) {
        let done = Command::new("docker").args(["tag", &format!("{}-{more}", self.name), &self.name]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let label = format!("label=innkeeper-test={}", self.name);
        let all = Command::new("docker").args(["image", "ls", "--quiet", "--filter", &label]).output().unwrap();
        let mut remove = Command::new("docker");
        remove.args(["image", "rm", "--force"]).args(String::from_utf8_lossy(&all.stdout).split_whitespace());
        remove.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}
