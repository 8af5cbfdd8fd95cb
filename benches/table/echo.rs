//! What somebody who types feels while two hundred others have programs running that print.
//!
//! Both servers have their people connected all the time. In turns those of one get to work, and only then one key after the other is pressed
//! there: what else the machine does meets both alike, and neither is held up by the other's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use russh::client::{Handle, Msg};
use russh::keys::PrivateKey;
use russh::{Channel, ChannelMsg, ChannelWriteHalf};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::Run;
use crate::crowd::{self, Client, Crowd, Seat};
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;
use crate::wait;

/// How many containers the others share.
const CONTAINERS: usize = 5;

/// How many lines each of the others prints in a round.
const LINES: u32 = 300;

/// How long each of them waits between two lines.
const BETWEEN_LINES: Duration = Duration::from_millis(50);

/// How long into a round typing begins, and how long before its end it stops: all of the others are at work between the two.
const MARGIN: Duration = Duration::from_secs(1);

/// How long, in milliseconds, somebody waits between two keys; not a constant time, which might keep step with the others.
const BETWEEN_KEYS: std::ops::Range<u64> = 25..55;

/// How long a key's echo may take before there is nothing left to measure.
const DEADLINE: Duration = Duration::from_secs(10);

/// The least number of keys that a 99th percentile is worth anything of.
const LEAST_KEYS: usize = 500;

/// The part of their lines that the others must have got out. With less they were not busy, and a server must not look fast by starving them.
const LEAST_LINES: f64 = 0.5;

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let others = run.repetitions(200, 50);
    let mut accounts: Vec<String> = (0..CONTAINERS).map(|number| format!("other{number}")).collect();
    accounts.push("typist".to_owned());
    let gateway = Gateway::start(&run.place, Setup { name: "echo", template: "pids = 4096\n", ..Setup::default() }, &accounts)?;
    let (crowds, typists, key) = (crowd::runtime()?, crowd::runtime()?, crowd::key(run)?);
    let command = other_command();
    let root = ["root".to_owned()];
    let crowd = |name, port, accounts| Crowd { name, port, accounts, size: others, command: Some(&command) };
    let sit = |crowd: Crowd<'_>, typist: &str| Side::arrive(run, &crowds, &typists, &key, crowd, typist);
    let mut ours = sit(crowd("echo", gateway.port, &accounts[..CONTAINERS]), "typist")?;
    let mut theirs = sit(crowd("echo, sshd", run.sshd.port, &root), "root")?;
    for turn in 0..run.repetitions(4, 2) {
        run.progress(&format!("echo: round {}", turn + 1));
        for side in [&mut ours, &mut theirs] {
            side.round(&crowds, &typists)?;
        }
    }
    for side in [&ours, &theirs] {
        ensure!(side.keys.count() >= LEAST_KEYS, "only {} keys were pressed", side.keys.count());
        ensure!(side.lines.quantile(0.0) >= LEAST_LINES, "the others were not busy: {}", side.spelled());
    }
    let (p99, beside) = (ours.keys.quantile(0.99), theirs.keys.quantile(0.99));
    let what = format!("a key's echo, 99th percentile, {others} others at work; beside: sshd");
    let note = format!("{}; beside: {}", ours.spelled(), theirs.spelled());
    Ok(vec![Row::new(what, p99, "ms").beside(beside).at_most(beside).note(note)])
}

/// What she runs who types: raw, as under a shell that edits lines, so that each byte goes to the program and comes back from it.
fn typist_command() -> String {
    format!("stty raw -echo && printf '{}' && exec cat", crowd::READY)
}

/// What each of the others runs: for every line that she types, a round of output; then silence. Perl, so that it takes no process a line.
fn other_command() -> String {
    let pause = BETWEEN_LINES.as_secs_f64();
    format!(
        "stty -echo && exec perl -e '$| = 1; print \"{}\\n\"; while (<STDIN>) {{ select undef, undef, undef, rand {pause}; \
         for (1..{LINES}) {{ print \"$_ is a line of output that scrolls by, as of a build or a log\\n\"; select undef, undef, undef, {pause} }} }}'",
        crowd::READY
    )
}

/// One server's people.
struct Side {
    others: Vec<Other>,
    /// Lines that have arrived at all of the others.
    heard: Arc<AtomicU64>,
    /// Her who types, between two rounds.
    typist: Option<Channel<Msg>>,
    #[allow(dead_code, reason = "keeps her connected")]
    connection: Handle<Client>,
    keys: Samples,
    /// The part of the others' lines that arrived, of each round.
    lines: Samples,
}

/// One of the others. What she is shown, a task counts.
struct Other {
    keyboard: ChannelWriteHalf<Msg>,
    connection: Handle<Client>,
}

// === impl Side ===

impl Side {
    fn arrive(run: &Run, crowds: &Runtime, typists: &Runtime, key: &Arc<PrivateKey>, crowd: Crowd<'_>, typist: &str) -> Result<Self> {
        let heard = Arc::new(AtomicU64::new(0));
        let others = crowd.arrive(run, crowds, key)?.into_iter().map(|seat| Other::busy(crowds, seat, heard.clone())).collect();
        let Seat { connection, channel } = typists.block_on(crowd::sit(key.clone(), crowd.port, typist, Some(&typist_command())))?;
        Ok(Self { others, heard, typist: Some(channel), connection, keys: Samples::default(), lines: Samples::default() })
    }

    /// The others get to work, and she types while they are at it. Returns when all of them are silent again.
    fn round(&mut self, crowds: &Runtime, typists: &Runtime) -> Result<()> {
        let whole = BETWEEN_LINES * LINES;
        crowds.block_on(async {
            for other in &self.others {
                other.keyboard.data_bytes("\n").await?;
            }
            anyhow::Ok(())
        })?;
        let began = Instant::now();
        wait::pause(MARGIN)?;
        let before = (self.heard.load(Ordering::Relaxed), Instant::now());
        let channel = self.typist.take().context("a round has failed")?;
        // On the thread that serves her connection, so that a key takes no way between threads of this process.
        let (channel, keys) = typists.block_on(typists.spawn(press_keys(channel, began + whole - MARGIN)))??;
        self.typist = Some(channel);
        self.keys.append(keys);
        #[allow(clippy::cast_precision_loss, reason = "a few thousand lines")]
        let (heard, expected) = (
            (self.heard.load(Ordering::Relaxed) - before.0) as f64,
            self.others.len() as f64 * before.1.elapsed().as_secs_f64() / BETWEEN_LINES.as_secs_f64(),
        );
        self.lines.add(heard / expected);
        ensure!(self.others.iter().all(|other| !other.connection.is_closed()), "somebody was thrown out");
        self.until_silent()
    }

    fn until_silent(&self) -> Result<()> {
        let mut last = None;
        wait::until("the others to be silent", || {
            wait::pause(MARGIN)?;
            let heard = self.heard.load(Ordering::Relaxed);
            Ok(last.replace(heard) == Some(heard))
        })
    }

    fn spelled(&self) -> String {
        let median = round(self.keys.median());
        format!("{} keys, median {median}, {:.0} % of the others' lines on time", self.keys.count(), 100.0 * self.lines.median())
    }
}

// === impl Other ===

impl Other {
    fn busy(runtime: &Runtime, seat: Seat, heard: Arc<AtomicU64>) -> Self {
        let (mut screen, keyboard) = seat.channel.split();
        runtime.spawn(async move {
            while let Some(message) = screen.wait().await {
                if let ChannelMsg::Data { data } = message {
                    heard.fetch_add(data.iter().filter(|byte| **byte == b'\n').count() as u64, Ordering::Relaxed);
                }
            }
        });
        Self { keyboard, connection: seat.connection }
    }
}

/// Presses one key after the other, and waits for each to come back.
async fn press_keys(mut channel: Channel<Msg>, until: Instant) -> Result<(Channel<Msg>, Samples)> {
    let mut keys = Samples::default();
    for key in (b'a'..=b'z').cycle() {
        tokio::time::sleep(Duration::from_millis(rand::random_range(BETWEEN_KEYS))).await;
        if Instant::now() >= until || wait::go_on().is_err() {
            break;
        }
        let pressed = Instant::now();
        channel.data_bytes(vec![key]).await?;
        let shown = timeout(DEADLINE, crowd::output(&mut channel)).await.context("a key's echo")??;
        keys.push(pressed.elapsed());
        ensure!(shown == [key], "{:?} was shown for {:?}", String::from_utf8_lossy(&shown), char::from(key));
    }
    Ok((channel, keys))
}
