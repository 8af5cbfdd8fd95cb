//! A workspace into a file and out of one. The running gateway reads and writes homes; this carries the bytes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::tasks::{Done, Told, size};
use crate::cli::output::Answer;
use crate::cli::{CommandError, asking, block_on};
use crate::name::WorkspaceName;

/// How often it is told how much has gone.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// A file that has its name only when all of it is there.
struct Unfinished {
    file: File,
    part: PathBuf,
}

pub(super) fn export(socket: &Path, name: &WorkspaceName, to: &Path) -> Result<Answer, CommandError> {
    let mut unfinished = (to != Path::new("-")).then(|| Unfinished::new(to)).transpose()?;
    let sum = block_on(async {
        let mut answer = asking::ask(socket, &format!("/api/v1/workspaces/{name}/archive")).await?;
        let (mut told, mut last, mut sum) = (Told::default(), Instant::now(), 0_u64);
        let broke_off = "the export broke off; the gateway's log says why";
        while let Some(chunk) = answer.chunk().await.context(broke_off)? {
            sum += chunk.len() as u64;
            match &mut unfinished {
                Some(unfinished) => unfinished.file.write_all(&chunk).with_context(|| format!("cannot write {}", to.display()))?,
                None => io::stdout().lock().write_all(&chunk).context("cannot write to standard output")?,
            }
            if last.elapsed() >= TELL_EVERY {
                last = Instant::now();
                told.tell(&step("exporting", sum));
            }
        }
        told.clear();
        Ok::<_, anyhow::Error>(sum)
    })??;
    match unfinished {
        Some(unfinished) => {
            unfinished.finish(to)?;
            let words = format!("{name} is in {}, {}\n", to.display(), size(sum));
            Ok(Answer::did(words, json!({ "name": name, "file": to.display().to_string(), "bytes": sum }), Value::Null))
        }
        None => {
            io::stdout().lock().flush()?;
            Ok(Answer::nothing())
        }
    }
}

pub(super) fn import(socket: &Path, name: &WorkspaceName, from: &Path) -> Result<Answer, CommandError> {
    let done = block_on(async {
        let file: Box<dyn AsyncRead + Send + Sync + Unpin> = if from == Path::new("-") {
            Box::new(tokio::io::stdin())
        } else {
            Box::new(tokio::fs::File::open(from).await.with_context(|| format!("cannot open {}", from.display()))?)
        };
        // Asked first: a refusal while a long file is on its way is easily lost.
        if asking::get(socket, &format!("/api/v1/workspaces/{name}")).await.is_ok() {
            return Err(anyhow!("there is a workspace {name} already; delete it for good first, or choose another name"));
        }
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let frames = ReaderStream::new(file).map_ok(move |chunk: Bytes| {
            counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Frame::data(chunk)
        });
        let path = format!("/api/v1/workspaces/{name}/archive");
        let sending = asking::upload(socket, &path, reqwest::Body::wrap(StreamBody::new(frames)));
        tokio::pin!(sending);
        let mut told = Told::default();
        let answer = loop {
            tokio::select! {
                answer = &mut sending => break answer,
                () = tokio::time::sleep(TELL_EVERY) => told.tell(&step("importing", sent.load(Ordering::Relaxed))),
            }
        };
        told.clear();
        let done = answer?;
        Done::of(done)
    })??;
    Ok(done.did(format!("{name} is imported ({}); it has no secrets and no mounts\n", done.contents()), json!({ "name": name })))
}

fn step(what: &str, bytes: u64) -> Value {
    json!({ "what": what, "entries": 0, "bytes": bytes })
}

// === impl Unfinished ===

impl Unfinished {
    fn new(to: &Path) -> anyhow::Result<Self> {
        if fs::symlink_metadata(to).is_ok() {
            return Err(anyhow!("{} is there already; remove it, or choose another name", to.display()));
        }
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // What is in a home is nobody else's business.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
        Ok(Self { file: file.with_context(|| format!("cannot make {}", part.display()))?, part })
    }

    fn finish(mut self, to: &Path) -> anyhow::Result<()> {
        let words = || format!("cannot write {}", to.display());
        self.file.sync_all().with_context(words)?;
        // Not over what somebody has put there meanwhile.
        fs::hard_link(&self.part, to).with_context(words)?;
        fs::remove_file(std::mem::take(&mut self.part)).with_context(words)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.part.as_os_str().is_empty() {
            // Nobody takes it for an export.
            let _ = fs::remove_file(&self.part);
        }
    }
}
