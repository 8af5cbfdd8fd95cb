//! A recording's name: when it began and something random, so that names are in the order of time and none comes twice.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `<12 hexadecimal digits of milliseconds since 1970>-<8 random ones>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordingId {
    millis: u64,
    random: u32,
}

impl RecordingId {
    /// One that begins now.
    pub(super) fn new(now: SystemTime) -> Self {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self { millis: u64::try_from(millis).unwrap_or_default() & 0xffff_ffff_ffff, random: rand::random() }
    }

    /// When it began.
    pub fn began(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis)
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{:08x}", self.millis, self.random)
    }
}

impl FromStr for RecordingId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |digits: &str| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let (millis, random) = text.split_once('-').ok_or(())?;
        if millis.len() != 12 || random.len() != 8 || !plain(millis) || !plain(random) {
            return Err(());
        }
        let millis = u64::from_str_radix(millis, 16).map_err(drop)?;
        Ok(Self { millis, random: u32::from_str_radix(random, 16).map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = RecordingId::new(SystemTime::now());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.began().elapsed().unwrap() < Duration::from_secs(5));
        for wrong in [
            "",
            "4711",
            "../../etc/passwd",
            "019AD0C1F2A4-5f3c9a10",
            "019ad0c1f2a4-5f3c9a1",
            "019ad0c1f2a4-5f3c9a100",
            "+19ad0c1f2a4-5f3c9a10",
        ] {
            assert!(wrong.parse::<RecordingId>().is_err(), "{wrong}");
        }
    }
}
