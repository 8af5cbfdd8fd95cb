//! What workspaces use, as it was measured now and then: the last figures of each, and a bounded history. Pure: who asks the engine and the disk
//! is [`super::sampling`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::engine::{ContainerId, Usage};
use crate::name::{VolumeName, WorkspaceName};
use crate::telemetry::{Disk, Host};

/// What a workspace used at some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub at: SystemTime,
    /// CPUs, averaged since the sample before; `None`: this is the first of its container.
    pub cpu: Option<f64>,
    /// Bytes of memory, without page cache that can be had back.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes in its home and volumes, where somebody counts them.
    pub disk: Option<u64>,
}

/// A point of a history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Since 1970, in seconds: of what is averaged, the last.
    pub at: u64,
    /// CPUs.
    pub cpu: f32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes in its home and volumes.
    pub disk: u64,
}

/// How far back a history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistorySpan {
    /// The last samples, each a point.
    Hour,
    /// Points that are averages of many.
    Day,
}

/// Bytes in a workspace's home, which is `None`, and in its volumes.
pub(super) type TreeBytes = BTreeMap<Option<VolumeName>, u64>;

/// All that is measured.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    tracks: HashMap<WorkspaceName, Track>,
    /// The CPU time that containers had used when they were last looked at.
    before: HashMap<ContainerId, (Instant, Duration)>,
    /// Bytes in homes and volumes.
    disks: HashMap<WorkspaceName, TreeBytes>,
    host: Host,
    state: Option<Disk>,
    homes: Option<Disk>,
    /// Bits of the containers' network.
    network: Option<u32>,
}

/// What is kept of a workspace.
#[derive(Debug)]
struct Track {
    last: Sample,
    hour: VecDeque<Point>,
    day: VecDeque<Point>,
    /// What the next point of the day will be the average of.
    next: Vec<Point>,
}

/// Points of a history.
const POINTS: usize = 240;
/// Workspaces of which there is a history: that is 16 MiB at most. Those that ran last are those that have one.
const TRACKS: usize = 1024;
/// What the points of the longer history reach back together.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many samples one point of a day is, with so much between them.
fn stride(every: Duration) -> usize {
    let point = DAY.as_secs_f64() / POINTS as f64;
    ((point / every.as_secs_f64().max(0.001)).round() as usize).clamp(1, 720)
}

// === impl Meter ===

impl Meter {
    /// Notes what a workspace's container has used so far, which is looked at this often.
    pub(super) fn note(&self, name: &WorkspaceName, id: &ContainerId, usage: &Usage, every: Duration) {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut book = self.0.lock();
        let before = book.before.insert(id.clone(), (now, usage.cpu));
        let cpu = before.and_then(|(then, cpu)| rate(usage.cpu.saturating_sub(cpu), now.duration_since(then)));
        let disk = book.disks.get(name).map(sum);
        let sample = Sample { at, cpu, memory: usage.memory, pids: usage.pids, disk };
        book.push(name, sample, stride(every));
    }

    /// Notes how much is in a workspace's home and volumes.
    pub(super) fn note_disk(&self, name: &WorkspaceName, bytes: TreeBytes) {
        self.0.lock().disks.insert(name.clone(), bytes);
    }

    /// Notes how the host does, and the disks of the state and of the homes.
    pub(super) fn note_host(&self, host: Host, state: Option<Disk>, homes: Option<Disk>) {
        let mut book = self.0.lock();
        (book.host, book.state, book.homes) = (host, state, homes);
    }

    /// Notes how large the containers' network is: the bits of its prefix.
    pub(super) fn note_network(&self, prefix: Option<u32>) {
        self.0.lock().network = prefix;
    }

    /// Forgets what containers had used that do not run any more.
    pub(super) fn retain(&self, running: &[ContainerId]) {
        self.0.lock().before.retain(|id, _| running.contains(id));
    }

    /// Forgets how full homes are that are not there any more.
    pub(super) fn retain_disks(&self, there: &dyn Fn(&WorkspaceName) -> bool) {
        self.0.lock().disks.retain(|name, _| there(name));
    }

    /// Forgets a workspace.
    pub(super) fn forget(&self, name: &WorkspaceName) {
        let mut book = self.0.lock();
        book.tracks.remove(name);
        book.disks.remove(name);
    }

    /// The last sample of a workspace that runs.
    pub(super) fn last(&self, name: &WorkspaceName) -> Option<Sample> {
        self.0.lock().tracks.get(name).map(|track| track.last)
    }

    /// Bytes in a workspace's home and volumes.
    pub(super) fn disk(&self, name: &WorkspaceName) -> Option<u64> {
        self.0.lock().disks.get(name).map(sum)
    }

    /// Bytes in each of a workspace's volumes.
    pub(super) fn volumes(&self, name: &WorkspaceName) -> BTreeMap<VolumeName, u64> {
        let disks = self.0.lock().disks.get(name).cloned().unwrap_or_default();
        disks.into_iter().filter_map(|(volume, bytes)| Some((volume?, bytes))).collect()
    }

    /// The history of a workspace, the oldest first.
    pub(super) fn history(&self, name: &WorkspaceName, span: HistorySpan) -> Vec<Point> {
        let book = self.0.lock();
        let Some(track) = book.tracks.get(name) else { return Vec::new() };
        match span {
            HistorySpan::Hour => track.hour.iter().copied().collect(),
            HistorySpan::Day => {
                let mut all: Vec<Point> = track.day.iter().copied().collect();
                all.extend(average(&track.next));
                all
            }
        }
    }

    /// All points of the last hour of these workspaces.
    pub(super) fn points_of(&self, names: &[WorkspaceName]) -> Vec<Point> {
        let book = self.0.lock();
        names.iter().filter_map(|name| book.tracks.get(name)).flat_map(|track| track.hour.iter().copied()).collect()
    }

    /// The bits of the prefix of the containers' network.
    pub(super) fn network(&self) -> Option<u32> {
        self.0.lock().network
    }

    /// How the host does, and the disks of the state and of the homes.
    pub(super) fn host(&self) -> (Host, Option<Disk>, Option<Disk>) {
        let book = self.0.lock();
        (book.host.clone(), book.state, book.homes)
    }
}

// === impl Book ===

impl Book {
    fn push(&mut self, name: &WorkspaceName, sample: Sample, stride: usize) {
        if !self.tracks.contains_key(name) && self.tracks.len() >= TRACKS {
            let oldest = self.tracks.iter().min_by_key(|(_, track)| track.last.at).map(|(name, _)| name.clone());
            oldest.map(|name| self.tracks.remove(&name));
        }
        let new = || Track { last: sample, hour: VecDeque::new(), day: VecDeque::new(), next: Vec::new() };
        self.tracks.entry(name.clone()).or_insert_with(new).push(sample, stride);
    }
}

// === impl Track ===

impl Track {
    fn push(&mut self, sample: Sample, stride: usize) {
        self.last = sample;
        // Of the first sample of a container it is not known what it is to be compared with.
        let Some(cpu) = sample.cpu else { return };
        let at = sample.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let point = Point { at, cpu: cpu as f32, memory: sample.memory, disk: sample.disk.unwrap_or_default() };
        keep(&mut self.hour, point);
        self.next.push(point);
        if self.next.len() >= stride {
            average(&self.next).into_iter().for_each(|point| keep(&mut self.day, point));
            self.next.clear();
        }
    }
}

fn sum(bytes: &TreeBytes) -> u64 {
    bytes.values().copied().fold(0, u64::saturating_add)
}

fn keep(points: &mut VecDeque<Point>, point: Point) {
    if points.len() >= POINTS {
        points.pop_front();
    }
    points.push_back(point);
}

fn average(points: &[Point]) -> Option<Point> {
    let last = points.last()?;
    let count = points.len() as u64;
    let mean = |of: fn(&Point) -> u64| u64::try_from(points.iter().map(|point| u128::from(of(point))).sum::<u128>() / u128::from(count));
    Some(Point {
        at: last.at,
        cpu: points.iter().map(|point| point.cpu).sum::<f32>() / count as f32,
        memory: mean(|point| point.memory).unwrap_or(u64::MAX),
        // What is in a home does not go up and down: the last is what is there.
        disk: last.disk,
    })
}

/// CPUs, of so much CPU time in so much time.
fn rate(cpu: Duration, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| cpu.as_secs_f64() / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkspaceName {
        text.parse().unwrap()
    }

    fn usage(cpu: u64, memory: u64) -> Usage {
        Usage { cpu: Duration::from_secs(cpu), memory, network: (0, 0), block: (0, 0), pids: 3 }
    }

    const EVERY: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_history_is_bounded_and_a_longer_one_is_of_averages() {
        let (meter, alice, id) = (Meter::default(), name("alice"), ContainerId("1".to_owned()));
        meter.note_disk(&alice, [(None, 700), (Some("data".parse().unwrap()), 300)].into());
        assert_eq!((meter.disk(&alice), meter.volumes(&alice)), (Some(1000), [("data".parse().unwrap(), 300)].into()));
        meter.note(&alice, &id, &usage(0, 5), EVERY);
        assert_eq!(meter.last(&alice).unwrap().cpu, None, "there is nothing to compare with");
        assert!(meter.history(&alice, HistorySpan::Hour).is_empty());
        let every_hour = 24;
        assert_eq!(stride(EVERY), every_hour);
        for round in 1..=1000 {
            tokio::time::advance(EVERY).await;
            // Half a CPU.
            meter.note(&alice, &id, &Usage { cpu: EVERY * round / 2, memory: u64::from(round), ..usage(0, 0) }, EVERY);
        }
        let hour = meter.history(&alice, HistorySpan::Hour);
        assert_eq!((hour.len(), hour.first().unwrap().memory, hour.last().unwrap().memory), (POINTS, 761, 1000));
        assert!(hour.iter().all(|point| (point.cpu - 0.5).abs() < 0.001 && point.disk == 1000), "{:?}", hour[0]);
        let day = meter.history(&alice, HistorySpan::Day);
        assert_eq!(day.len(), 1000 / 24 + 1);
        assert_eq!((day[0].memory, day.last().unwrap().memory), (12, 992), "the last is of those since");
    }

    #[tokio::test(start_paused = true)]
    async fn another_container_begins_anew_and_those_that_ran_last_have_a_history() {
        let meter = Meter::default();
        let alice = name("alice");
        for (id, cpu) in [("1", 1000), ("2", 1)] {
            meter.note(&alice, &ContainerId(id.to_owned()), &usage(cpu, 1), EVERY);
            tokio::time::advance(EVERY).await;
            meter.retain(&[ContainerId(id.to_owned())]);
        }
        assert_eq!(meter.last(&alice).unwrap().cpu, None);
        meter.note(&alice, &ContainerId("2".to_owned()), &usage(16, 1), EVERY);
        assert_eq!(meter.last(&alice).unwrap().cpu, Some(1.0));
        for number in 0..TRACKS {
            meter.note(&name(&format!("w{number}")), &ContainerId(number.to_string()), &usage(0, 1), EVERY);
        }
        assert_eq!(meter.0.lock().tracks.len(), TRACKS);
        assert_eq!(meter.last(&alice), None, "the oldest goes");
        meter.note_disk(&alice, [(None, 1)].into());
        meter.forget(&alice);
        assert_eq!(meter.disk(&alice), None);
    }
}
