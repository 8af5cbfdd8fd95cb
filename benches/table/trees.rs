//! Trees as homes have them, the same in every run: many small files, and one large one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::wait::go_on;

/// How many files lie in a directory.
const IN_A_DIRECTORY: usize = 100;
/// Small files have up to so many bytes, half of it on average: as sources and packages have.
const SMALL: usize = 8 * 1024;
/// Every second piece of this size of a large file is text, every other one cannot be compressed.
const PIECE: usize = 64 * 1024;

/// This many files of up to 8 KiB of text, a hundred to a directory.
pub fn small_files(into: &Path, count: usize) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut text = Vec::new();
    for directory in 0..count.div_ceil(IN_A_DIRECTORY) {
        go_on()?;
        let dir = into.join(format!("directory-{directory}"));
        fs::create_dir_all(&dir)?;
        for file in 0..IN_A_DIRECTORY.min(count - directory * IN_A_DIRECTORY) {
            let length = random.random_range(0..SMALL);
            words(&mut random, &mut text, length);
            fs::write(dir.join(format!("file-{file}.txt")), &text)?;
        }
    }
    Ok(())
}

/// Files of one size, half of which can be compressed, a hundred to a directory.
pub fn files(into: &Path, count: usize, bytes: u64) -> Result<()> {
    for file in 0..count {
        let dir = into.join(format!("directory-{}", file / IN_A_DIRECTORY));
        fs::create_dir_all(&dir)?;
        large_file(&dir.join(format!("file-{file}")), bytes, file as u64)?;
    }
    Ok(())
}

/// One file, half of which can be compressed.
pub fn large_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let (mut piece, mut left, mut is_text) = (Vec::new(), bytes, false);
    while left > 0 {
        go_on()?;
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        if is_text {
            words(&mut random, &mut piece, length);
        } else {
            piece.resize(length, 0);
            random.fill_bytes(&mut piece);
        }
        out.write_all(&piece)?;
        left -= length as u64;
        is_text = !is_text;
    }
    Ok(out.flush()?)
}

/// Text of so many bytes, which zstd makes a third of.
fn words(random: &mut SmallRng, text: &mut Vec<u8>, length: usize) {
    text.clear();
    while text.len() < length {
        let word = random.next_u64();
        // A few hundred words, of which the short ones are the frequent ones.
        let which = (word % 600) * (word >> 32 & 0xFF) / 256;
        let end = if word >> 60 == 0 { '\n' } else { ' ' };
        let _ = write!(text, "{:x}{end}", (which + 1) * 7919);
    }
    text.truncate(length);
}
