//! The records of an extended header.

use std::ffi::CString;

use rustix::fs::Timespec;

use super::super::attributes::is_users;

/// Before the name of an extended attribute.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What an extended header says of the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timespec>,
    pub(super) attributes: Vec<(CString, Vec<u8>)>,
    pub(super) comment: Option<Vec<u8>>,
    /// The version of a file with holes, its name and its size with them.
    pub(super) sparse_version: (Option<u64>, Option<u64>),
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    /// Another way to write holes, which is not read.
    pub(super) sparse_other: bool,
}

/// Appends a record.
pub(super) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Appends the record of an extended attribute.
pub(super) fn push_attribute(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut key = ATTRIBUTE.to_vec();
    for byte in name {
        // As GNU tar does: a key ends at the first `=`.
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            _ => key.push(*byte),
        }
    }
    push(records, &key, value);
}

/// Reads an extended header; nothing if it is none.
pub(super) fn parse(mut records: &[u8]) -> Option<Extension> {
    let mut extension = Extension::default();
    while !records.is_empty() {
        // GNU tar pads the last block with zeros, and counts them.
        if records.iter().all(|byte| *byte == 0) {
            break;
        }
        let space = records.iter().take(12).position(|byte| *byte == b' ')?;
        let length = usize::try_from(number(&records[..space])?).ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        extension.take(&record[..equals], &record[equals + 1..])?;
        records = &records[length..];
    }
    Some(extension)
}

impl Extension {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(u32::try_from(number(value)?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(number(value)?).ok()?),
            b"mtime" => self.mtime = Some(parse_time(value)?),
            b"comment" => self.comment = Some(value.to_vec()),
            b"GNU.sparse.major" => self.sparse_version.0 = Some(number(value)?),
            b"GNU.sparse.minor" => self.sparse_version.1 = Some(number(value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => self.sparse_size = Some(number(value)?),
            _ => {
                self.sparse_other |= key.starts_with(b"GNU.sparse.");
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    let name = unescape(name);
                    // The others are the kernel's or root's.
                    if is_users(&name) {
                        self.attributes.push((CString::new(name).ok()?, value.to_vec()));
                    }
                }
            }
        }
        Some(())
    }
}

/// A decimal number, and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time in seconds, with a fraction.
pub(super) fn time_text(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        // The fraction counts away from zero, in the kernel towards the future.
        return format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

fn parse_time(text: &[u8]) -> Option<Timespec> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let seconds = i64::try_from(number(&digits[..point])?).ok()?;
    let mut nanoseconds: i64 = 0;
    let fraction = digits.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + i64::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanoseconds },
    })
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        match rest.get(..3) {
            Some(b"%3D") => out.push(b'='),
            Some(b"%25") => out.push(b'%'),
            _ => {
                out.push(*first);
                rest = after;
                continue;
            }
        }
        rest = &rest[3..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        for length in [0, 1, 80, 90, 91, 92, 93, 94, 95, 100, 985, 990, 995, 9_990] {
            let mut records = Vec::new();
            push(&mut records, b"path", &vec![b'\n'; length]);
            push_attribute(&mut records, b"user.a=b%c", b"\0\n=");
            let extension = parse(&records).unwrap();
            assert_eq!(extension.path.unwrap().len(), length);
            assert_eq!(extension.attributes, [(c"user.a=b%c".to_owned(), b"\0\n=".to_vec())]);
        }
    }

    #[test]
    fn times_come_back_as_they_were() {
        for (seconds, nanoseconds) in [(0, 0), (0, 1), (-1, 0), (-1, 1), (-5, 987_654_321), (i64::from(u32::MAX), 999_999_999)] {
            let time = parse_time(time_text(seconds, nanoseconds).as_bytes()).unwrap();
            assert_eq!((time.tv_sec, time.tv_nsec), (seconds, i64::from(nanoseconds)));
        }
        assert_eq!(parse_time(b"-0.5").map(|time| (time.tv_sec, time.tv_nsec)), Some((-1, 500_000_000)));
        for wrong in [&b""[..], b"-", b"1.-5", b"1.5x", b"99999999999999999999", b"+1"] {
            assert_eq!(parse_time(wrong), None);
        }
    }

    #[test]
    fn nonsense_is_none() {
        for wrong in
            [&b"5 a=b"[..], b"99 path=x\n", b"0 a=b\n", b"3 a=\n", b"x", b"-1 a=b\n", b"7 abcd\n", b"6 uid=x\n", b"11 uid=4294967296\n"]
        {
            assert!(parse(wrong).is_none(), "{}", String::from_utf8_lossy(wrong));
        }
        assert!(parse(b"").is_some());
        let mut others = Vec::new();
        push_attribute(&mut others, b"security.capability", b"x");
        push_attribute(&mut others, b"trusted.x", b"x");
        assert_eq!(parse(&others), Some(Extension::default()));
    }
}
