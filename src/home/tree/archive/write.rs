//! A tree into an archive.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Stat};
use rustix::io::{self, Errno};
use tar::{EntryType, Header};

use super::super::budget::Budget;
use super::super::content::{allocated, next_data};
use super::super::entry::{self, FileId, Opened, open_file};
use super::super::walk::{Entered, Walk};
use super::super::{Limits, Summary, TreeError, Watch, attributes};
use super::blocks::{Writer, padding};
use super::{BLOCK, LONGEST_ATTRIBUTES, LONGEST_PATH, MOST_STRETCHES, Seal, pax};

/// zstd's own default: half the size of a home in little more time than reading it takes.
const LEVEL: i32 = 3;
/// Threads that compress, beside the one that reads: one takes several times as long for its half of the work as that.
const THREADS: u32 = 2;
/// How much is read of a file at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// The longest path that a further name of a file may be told by, in bytes: unpacking goes down all of it each time.
const LONGEST_LINK: usize = 4096;
/// What the paths of files with several names may take in memory, in bytes, all together.
const REMEMBERED: usize = 64 * 1024 * 1024;

/// Writes a directory with all that is in it, itself among it, as an archive. The limits hold for what is read.
///
/// Kept is what [`copy`](super::super::copy) keeps; what it leaves out is left out. When this fails, or is killed, what was written is not sealed,
/// and nobody takes it for whole. What was written is flushed, but not synced to any disk.
pub fn write(dir: BorrowedFd<'_>, out: impl Write, limits: Limits, watch: Watch<'_>) -> Result<Summary, TreeError> {
    let mut zstd = zstd::Encoder::new(out, LEVEL).map_err(TreeError::of("write the archive"))?;
    let set = zstd.include_checksum(true).and_then(|()| zstd.multithread(THREADS));
    set.map_err(TreeError::of("write the archive"))?;
    let mut archive = Archive {
        walk: Walk::new(dir)?,
        out: Writer::new(BufWriter::with_capacity(CHUNK, zstd)),
        path: Vec::new(),
        links: HashMap::new(),
        remembered: 0,
        buffer: vec![0; CHUNK],
        budget: Budget::new(limits, watch),
        entries: 0,
        summary: Summary::default(),
    };
    archive.run()?;
    let (summary, out) = archive.seal()?;
    let zstd = out.into_inner().map_err(|why| TreeError::of("write the archive")(why.into_error()))?;
    let mut out = zstd.finish().map_err(TreeError::of("write the archive"))?;
    out.flush().map_err(TreeError::of("write the archive"))?;
    Ok(summary)
}

struct Archive<'a, W: Write> {
    walk: Walk,
    out: Writer<W>,
    /// Of the directory that the walk is in, with a slash at the end.
    path: Vec<u8>,
    /// Where files with several names were written.
    links: HashMap<FileId, Vec<u8>>,
    remembered: usize,
    buffer: Vec<u8>,
    budget: Budget<'a>,
    entries: u64,
    summary: Summary,
}

impl<W: Write> Archive<'_, W> {
    fn run(&mut self) -> Result<(), TreeError> {
        let stat = fs::fstat(self.walk.dir()).map_err(TreeError::of("look at a directory"))?;
        let mut records = Vec::new();
        self.summary.skipped.attributes += extended(self.walk.dir(), &mut records)?;
        self.header(EntryType::Directory, b"./", b"", &stat, 0, records)?;
        loop {
            if let Some(found) = self.walk.next()? {
                self.budget.entry()?;
                self.entry(&found.name, found.kind)?;
                continue;
            }
            let Some(left) = self.walk.leave()? else { return Ok(()) };
            self.summary.skipped.changed += left.lost as u64;
            for _ in 0..=left.lost {
                self.path.pop();
                let slash = self.path.iter().rposition(|byte| *byte == b'/');
                self.path.truncate(slash.map_or(0, |at| at + 1));
            }
        }
    }

    fn entry(&mut self, name: &CStr, kind: FileType) -> Result<(), TreeError> {
        let path = [&self.path, name.to_bytes()].concat();
        if path.len() > LONGEST_PATH {
            return Err(TreeError::TooDeep);
        }
        let skipped = &mut self.summary.skipped;
        match kind {
            FileType::RegularFile => return self.file(name, &path),
            FileType::Directory => return self.directory(name, path),
            FileType::Symlink => return self.symlink(name, &path),
            FileType::Fifo => return self.fifo(name, &path),
            FileType::Socket => skipped.sockets += 1,
            FileType::CharacterDevice | FileType::BlockDevice => skipped.devices += 1,
            _ => skipped.changed += 1,
        }
        Ok(())
    }

    fn directory(&mut self, name: &CStr, mut path: Vec<u8>) -> Result<(), TreeError> {
        match self.walk.enter(name)? {
            Entered::Here(stat) => {
                path.push(b'/');
                let mut records = Vec::new();
                self.summary.skipped.attributes += extended(self.walk.dir(), &mut records)?;
                self.header(EntryType::Directory, &path, b"", &stat, 0, records)?;
                self.path = path;
                self.summary.directories += 1;
            }
            Entered::Mount => self.summary.skipped.mounts += 1,
            Entered::Changed => self.summary.skipped.changed += 1,
        }
        Ok(())
    }

    fn symlink(&mut self, name: &CStr, path: &[u8]) -> Result<(), TreeError> {
        let target = match fs::readlinkat(self.walk.dir(), name, Vec::new()) {
            Ok(target) => Some(target),
            Err(Errno::INVAL) => None,
            Err(why) if entry::is_change(why) => None,
            Err(why) => return Err(TreeError::of("read a link")(why)),
        };
        let stat = entry::look(self.walk.dir(), name)?.filter(|stat| entry::kind(stat) == FileType::Symlink);
        let (Some(target), Some(stat)) = (target, stat) else {
            self.summary.skipped.changed += 1;
            return Ok(());
        };
        self.summary.symlinks += 1;
        self.header(EntryType::Symlink, path, target.to_bytes(), &stat, 0, Vec::new())
    }

    fn fifo(&mut self, name: &CStr, path: &[u8]) -> Result<(), TreeError> {
        let stat = entry::look(self.walk.dir(), name)?.filter(|stat| entry::kind(stat) == FileType::Fifo);
        let Some(stat) = stat else {
            self.summary.skipped.changed += 1;
            return Ok(());
        };
        self.summary.fifos += 1;
        self.header(EntryType::Fifo, path, b"", &stat, 0, Vec::new())
    }

    fn file(&mut self, name: &CStr, path: &[u8]) -> Result<(), TreeError> {
        let (file, stat) = match open_file(self.walk.dir(), name)? {
            Opened::Here(file, stat) => (file, stat),
            Opened::Mount => {
                self.summary.skipped.mounts += 1;
                return Ok(());
            }
            Opened::Changed => {
                self.summary.skipped.changed += 1;
                return Ok(());
            }
        };
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&FileId::of(&stat)) {
                let first = first.clone();
                self.summary.hard_links += 1;
                return self.header(EntryType::Link, path, &first, &stat, 0, Vec::new());
            }
            if path.len() <= LONGEST_LINK && self.remembered + path.len() <= REMEMBERED {
                // What the map takes beside the path.
                self.remembered += path.len() + 64;
                self.links.insert(FileId::of(&stat), path.to_vec());
            }
        }
        let mut records = Vec::new();
        self.summary.skipped.attributes += extended(file.as_fd(), &mut records)?;
        self.summary.files += 1;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if allocated(&stat) >= size {
            self.header(EntryType::Regular, path, b"", &stat, size, records)?;
            self.stretch(&file, 0, size)?;
            return self.out.pad(size);
        }
        self.sparse(&file, path, &stat, size, records)
    }

    /// Writes a file with holes: a list of its stretches of data, then those.
    fn sparse(&mut self, file: &OwnedFd, path: &[u8], stat: &Stat, size: u64, mut records: Vec<u8>) -> Result<(), TreeError> {
        let mut stretches = stretches(file, size, MOST_STRETCHES)?;
        // The end of the last is the file's size, also where that ends with a hole.
        if stretches.last().is_none_or(|(_, stop)| *stop < size) {
            stretches.push((size, size));
        }
        let mut list = format!("{}\n", stretches.len());
        for (start, stop) in &stretches {
            list.push_str(&format!("{start}\n{}\n", stop - start));
        }
        let mut list = list.into_bytes();
        list.resize(list.len() + padding(list.len() as u64), 0);
        let data: u64 = stretches.iter().map(|(start, stop)| stop - start).sum();
        pax::push(&mut records, b"GNU.sparse.major", b"1");
        pax::push(&mut records, b"GNU.sparse.minor", b"0");
        pax::push(&mut records, b"GNU.sparse.name", path);
        pax::push(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        self.header(EntryType::Regular, path, b"", stat, list.len() as u64 + data, records)?;
        self.out.write(&list)?;
        for (start, stop) in stretches {
            self.stretch(file, start, stop)?;
        }
        self.out.pad(data)
    }

    /// Writes a stretch of a file. If it was cut short meanwhile, zeros: the header has said how much there is.
    fn stretch(&mut self, file: &OwnedFd, mut at: u64, stop: u64) -> Result<(), TreeError> {
        let mut short = false;
        while at < stop {
            let want = usize::try_from(stop - at).map_or(CHUNK, |left| left.min(CHUNK));
            self.budget.bytes(want as u64)?;
            let mut done = 0;
            if !short {
                done = io::retry_on_intr(|| io::pread(file, &mut self.buffer[..want], at)).map_err(TreeError::of("read a file"))?;
            }
            if done == 0 {
                self.summary.skipped.changed += u64::from(!short);
                short = true;
                self.buffer[..want].fill(0);
                done = want;
            }
            self.out.write(&self.buffer[..done])?;
            at += done as u64;
        }
        Ok(())
    }

    /// Writes a header, after an extended one if there is more to say than it has room for.
    fn header(&mut self, kind: EntryType, path: &[u8], link: &[u8], stat: &Stat, size: u64, mut records: Vec<u8>) -> Result<(), TreeError> {
        self.entries += 1;
        let mut header = Header::new_ustar();
        header.set_mode(attributes::mode(stat).bits());
        if path.len() > header.as_old().name.len() {
            pax::push(&mut records, b"path", path);
        }
        let room = header.as_old().linkname.len();
        if link.len() > room {
            pax::push(&mut records, b"linkpath", link);
        }
        let shown = &link[..link.len().min(room)];
        header.as_old_mut().linkname[..shown.len()].copy_from_slice(shown);
        // Seven octal digits.
        for (key, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
            if id > 0o7_777_777 {
                pax::push(&mut records, key.as_bytes(), id.to_string().as_bytes());
            }
        }
        header.set_uid(u64::from(stat.st_uid.min(0o7_777_777)));
        header.set_gid(u64::from(stat.st_gid.min(0o7_777_777)));
        // Eleven.
        const MOST: u64 = 0o77_777_777_777;
        if size > MOST {
            pax::push(&mut records, b"size", size.to_string().as_bytes());
        }
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let plain = u64::try_from(stat.st_mtime).ok().filter(|seconds| nanoseconds == 0 && *seconds <= MOST);
        if plain.is_none() {
            pax::push(&mut records, b"mtime", pax::time_text(stat.st_mtime, nanoseconds).as_bytes());
        }
        header.set_mtime(plain.unwrap_or_else(|| u64::try_from(stat.st_mtime).unwrap_or(0).min(MOST)));
        if !records.is_empty() {
            self.out.extension(EntryType::XHeader, &records)?;
        }
        self.out.header(header, kind, path, size.min(MOST))
    }

    fn seal(mut self) -> Result<(Summary, W), TreeError> {
        let bytes = self.budget.taken();
        let seal = Seal { entries: self.entries, bytes, digest: self.out.digest() };
        let mut records = Vec::new();
        pax::push(&mut records, b"comment", seal.to_text().as_bytes());
        self.out.extension(EntryType::XGlobalHeader, &records)?;
        self.out.write(&[0; 2 * BLOCK])?;
        Ok((Summary { bytes, ..self.summary }, self.out.into_inner()))
    }
}

/// Appends the extended attributes of a file. Returns how many there was no room for.
fn extended(file: BorrowedFd<'_>, records: &mut Vec<u8>) -> Result<u64, TreeError> {
    let mut left_out = 0;
    attributes::for_each(file, |name, value| {
        if records.len() + value.len() > LONGEST_ATTRIBUTES {
            left_out += 1;
        } else {
            pax::push_attribute(records, name.to_bytes(), value);
        }
        Ok(())
    })?;
    Ok(left_out)
}

/// The stretches of a file between its holes. Of too many, the smaller holes are taken for data.
fn stretches(file: &OwnedFd, size: u64, most: usize) -> Result<Vec<(u64, u64)>, TreeError> {
    let mut found = Vec::new();
    let (mut at, mut smallest) = (0, 1);
    while let Some((start, stop)) = next_data(file, at, size)? {
        add(&mut found, start, stop, smallest);
        at = stop;
        while found.len() >= most {
            smallest = smallest.saturating_mul(4096);
            let mut merged = Vec::new();
            for (start, stop) in found {
                add(&mut merged, start, stop, smallest);
            }
            found = merged;
        }
    }
    Ok(found)
}

/// Appends a stretch; to the last one, if the hole between them is smaller than so many bytes.
fn add(found: &mut Vec<(u64, u64)>, start: u64, stop: u64, smallest: u64) {
    match found.last_mut() {
        Some(last) if start - last.1 < smallest => last.1 = stop,
        _ => found.push((start, stop)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn of_too_many_holes_the_small_ones_are_data() {
        let file = tempfile::tempfile().unwrap();
        for island in 0..20_u64 {
            file.write_all_at(b"x", island * (8 << 10) + (island / 5) * (1 << 30)).unwrap();
        }
        let size = 5 << 30;
        file.set_len(size).unwrap();
        let file = OwnedFd::from(file);
        assert_eq!(stretches(&file, size, 100).unwrap().len(), 20);
        let few = stretches(&file, size, 8).unwrap();
        assert!(few.len() < 8, "{few:?}");
        assert!(few.iter().map(|(start, stop)| stop - start).sum::<u64>() < 1 << 20, "the large holes are holes: {few:?}");
    }
}
