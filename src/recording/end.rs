//! How a session, and its recording, come to their ends.

/// Why a session is not recorded, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be written.
    Disk,
    /// Less is free than is to be.
    DiskLow,
    /// The disk does not keep up.
    Slow,
    /// All together are as large as they may be, and all go on.
    Quota,
    /// It is as large as one may be.
    Largest,
}

/// How a session came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its process ended: with this.
    Exited(String),
    /// Its client went first, or something else ended it.
    Left,
}

// === impl Failure ===

impl Failure {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Disk, Self::DiskLow, Self::Slow, Self::Quota, Self::Largest];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::DiskLow => "disk_low",
            Self::Slow => "slow",
            Self::Quota => "quota",
            Self::Largest => "largest",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disk => "it cannot be written",
            Self::DiskLow => "less than limits.disk_floor is free",
            Self::Slow => "the disk does not keep up",
            Self::Quota => "recordings that go on take all of recording.quota",
            Self::Largest => "it is as large as recording.largest",
        })
    }
}
