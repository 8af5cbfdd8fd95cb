//! What processes hold of the machine's memory and have taken of its time, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory of a process, in KiB.
pub fn resident(pid: u32) -> Result<f64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Memory of a process and its descendants of this name, in KiB, what several share counted once.
pub fn family(pid: u32, name: &str) -> Result<f64> {
    let mut sum = 0.0;
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        // Who has just ended has none.
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
            sum += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0.0);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        left.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(sum)
}

/// How many of the kernel's ticks a second has where it tells programs of them: the same on every architecture of today.
const TICKS: f64 = 100.0;

/// The processor time that a process has taken, in its own code and in the kernel on its behalf, in seconds. Its children's is not in it.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let (user, system): (f64, f64) = (stat(pid, 14)?.parse()?, stat(pid, 15)?.parse()?);
    Ok((user + system) / TICKS)
}

/// The process that a process is a child of.
pub fn parent(pid: u32) -> Result<u32> {
    Ok(stat(pid, 4)?.parse()?)
}

/// A field of /proc/…/stat by its number in proc(5), 3 or above.
fn stat(pid: u32, number: usize) -> Result<String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // A program may have spaces and brackets in its name, the second field.
    let (_, rest) = text.rsplit_once(") ").with_context(|| path.clone())?;
    Ok(rest.split(' ').nth(number - 3).with_context(|| format!("field {number} in {path}"))?.to_owned())
}

/// The first process of this name.
pub fn find(name: &str) -> Option<u32> {
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
}

fn field(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} in {path}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
