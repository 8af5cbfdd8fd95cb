//! What this process may do, as the kernel has it.

/// The number of `CAP_SYS_RESOURCE`.
pub(super) const SYS_RESOURCE: u32 = 24;

/// Whether this process has a capability. Programs that it starts then have it too.
pub(super) fn has(capability: u32) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    effective.is_some_and(|all| all >> capability & 1 == 1)
}
