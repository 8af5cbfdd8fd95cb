//! How the host does, as its kernel tells it: processors, memory, load. What cannot be read is left out.

use std::path::Path;

/// How the host does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    /// Processors.
    pub cpus: usize,
    /// Share of all processors that was in use since the last look, from 0 to 1; `None` at the first.
    pub cpu: Option<f64>,
    /// Bytes of memory that are in use, page cache that can be had back not counted, and that there are.
    pub memory: Option<(u64, u64)>,
    /// Processes that ran or waited, over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
}

/// How full a disk is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// In use.
    pub used: u64,
    /// Free, to who is not root.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Looks at the host, and remembers what it saw the last time.
#[derive(Debug, Default)]
pub struct HostWatch(Option<Ticks>);

/// Time that processors have spent since the host was started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

// === impl HostWatch ===

impl HostWatch {
    /// Looks. The files are the kernel's: reading them waits for no disk.
    pub fn look(&mut self) -> Host {
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
        let now = ticks(&read("stat"));
        let before = std::mem::replace(&mut self.0, now);
        Host {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: before.zip(now).and_then(|(before, now)| share(before, now)),
            memory: memory(&read("meminfo")),
            load: load(&read("loadavg")),
        }
    }
}

// === impl Disk ===

impl Disk {
    /// That on which something is; `None` where it cannot be asked.
    pub fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(Self { used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)), free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }
}

fn ticks(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; what follows is counted among the first two already.
    let fields: Vec<u64> = fields.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let idle = fields.get(3)?.saturating_add(fields.get(4).copied().unwrap_or(0));
    let all = fields.iter().fold(0u64, |sum, field| sum.saturating_add(*field));
    Some(Ticks { busy: all.saturating_sub(idle), all })
}

fn share(before: Ticks, now: Ticks) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    // A processor that was taken away lets counters go back.
    Some((now.busy.saturating_sub(before.busy) as f64 / all as f64).clamp(0.0, 1.0))
}

fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().split(' ').next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
    };
    let total = field("MemTotal:")?;
    Some((total.saturating_sub(field("MemAvailable:")?), total))
}

fn load(loadavg: &str) -> Option<[f64; 3]> {
    let mut fields = loadavg.split_whitespace().map(|field| field.parse::<f64>().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let at = |text: &str| ticks(text).unwrap();
        let before = at("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3 4\n");
        assert_eq!(before, Ticks { busy: 200, all: 1000 });
        assert_eq!(share(before, at("cpu  150 0 125 750 75 0 0 0 9 9\n")), Some(0.75), "waiting for a disk may be taken back");
        assert_eq!(share(before, at("cpu  125 0 100 775 100 0 0 0\n")), Some(0.25));
        assert_eq!(share(before, before), None);
        assert_eq!(ticks("intr 1 2\n"), None);
        let meminfo = "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     400 kB\n";
        assert_eq!(memory(meminfo), Some((600 * 1024, 1000 * 1024)));
        assert_eq!(memory("MemTotal: 5 kB\n"), None);
        assert_eq!(load("0.20 1.50 3.00 1/200 4711\n"), Some([0.2, 1.5, 3.0]));
        assert_eq!(load("0.20"), None);
    }

    #[test]
    fn this_host_answers() {
        let mut watch = HostWatch::default();
        let first = watch.look();
        assert!(first.cpus > 0 && first.cpu.is_none() && first.load.is_some(), "{first:?}");
        assert!(first.memory.is_some_and(|(used, total)| used < total), "{first:?}");
        let disk = Disk::of(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.used <= disk.total, "{disk:?}");
    }
}
