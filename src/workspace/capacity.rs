//! How many more workspaces fit, and what one costs. Pure.

use super::meter::Point;
use super::starts::percentile;

/// Something that a host has and workspaces share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Processors.
    Cpu,
    /// Memory.
    Memory,
    /// Space for homes.
    Disk,
    /// `limits.containers`.
    Places,
    /// Addresses of the containers' network.
    Addresses,
}

/// So much of what a host has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Resources {
    /// CPUs.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory: f64,
    /// Bytes of homes and volumes.
    pub disk: f64,
}

/// What there is, and what of it is left.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Room {
    /// All that the host has.
    pub total: Resources,
    /// What of it is left.
    pub left: Resources,
    /// Workspaces that may run besides, by `limits.containers`.
    pub places: u64,
    /// Addresses that are free, where there is a network of a known size.
    pub addresses: Option<u64>,
}

/// How many fit, what they meet first, and what one costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fits {
    /// How many more can run at once.
    pub more: u64,
    /// What there is not enough of for another.
    pub bound: Bound,
    /// The largest share of the host that one has, from 0.
    pub share: f64,
}

// === impl Bound ===

impl Bound {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Places => "places",
            Self::Addresses => "addresses",
        }
    }
}

// === impl Fits ===

impl Fits {
    /// How many more of what takes so much fit into this.
    pub fn of(each: &Resources, room: &Room) -> Self {
        let fit = |left: f64, each: f64| if each > 0.0 { (left.max(0.0) / each).floor() as u64 } else { u64::MAX };
        let bounds = [
            (room.places, Bound::Places),
            (fit(room.left.memory, each.memory), Bound::Memory),
            (fit(room.left.cpu, each.cpu), Bound::Cpu),
            (fit(room.left.disk, each.disk), Bound::Disk),
            (room.addresses.unwrap_or(u64::MAX), Bound::Addresses),
        ];
        let (more, bound) = bounds.into_iter().min_by_key(|(more, _)| *more).unwrap_or((0, Bound::Places));
        let share = |each: f64, total: f64| if total > 0.0 { each / total } else { 0.0 };
        let shares = [share(each.cpu, room.total.cpu), share(each.memory, room.total.memory), share(each.disk, room.total.disk)];
        Self { more, bound, share: shares.into_iter().fold(0.0, f64::max) }
    }
}

/// What all but a twentieth of these stay below, each resource by itself. `None`: nothing was measured.
pub(super) fn typical(points: &[Point]) -> Option<Resources> {
    let most = |of: fn(&Point) -> f64| {
        let mut all: Vec<f64> = points.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        percentile(&all, 0.95).copied()
    };
    Some(Resources {
        cpu: most(|point| f64::from(point.cpu))?,
        memory: most(|point| point.memory as f64)?,
        disk: most(|point| point.disk as f64)?,
    })
}

/// Addresses that containers can have in a network of this many bits: not its own, not the one that reaches all, not the gateway's.
pub(super) fn addresses(prefix: u32) -> Option<u64> {
    let bits = 32u32.checked_sub(prefix)?;
    Some((1u64 << bits).saturating_sub(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: f64 = (1u64 << 30) as f64;

    fn room() -> Room {
        let total = Resources { cpu: 8.0, memory: 32.0 * GIB, disk: 500.0 * GIB };
        Room { total, left: total, places: 100, addresses: Some(200) }
    }

    fn each(cpu: f64, memory: f64, disk: f64) -> Resources {
        Resources { cpu, memory: memory * GIB, disk: disk * GIB }
    }

    #[test]
    fn what_is_scarcest_is_the_bound() {
        let of = |each: Resources, room: Room| {
            let fits = Fits::of(&each, &room);
            (fits.more, fits.bound)
        };
        assert_eq!(of(each(2.0, 4.0, 10.0), room()), (4, Bound::Cpu));
        assert_eq!(of(each(0.5, 4.0, 10.0), room()), (8, Bound::Memory));
        assert_eq!(of(each(0.5, 1.0, 100.0), room()), (5, Bound::Disk));
        assert_eq!(of(each(0.01, 0.01, 0.01), room()), (100, Bound::Places));
        assert_eq!(of(each(0.01, 0.01, 0.01), Room { addresses: Some(7), ..room() }), (7, Bound::Addresses));
        assert_eq!(of(each(0.0, 0.0, 0.0), Room { addresses: None, ..room() }), (100, Bound::Places), "what takes nothing fits");
        let over = Room { left: Resources { cpu: -3.0, ..room().left }, ..room() };
        assert_eq!(of(each(2.0, 4.0, 10.0), over), (0, Bound::Cpu), "more is promised than there is");
    }

    #[test]
    fn a_share_is_that_of_what_it_has_most_of() {
        let share = |each| Fits::of(&each, &room()).share;
        assert_eq!(share(each(2.0, 4.0, 10.0)), 0.25);
        assert_eq!(share(each(0.0, 16.0, 10.0)), 0.5);
        assert_eq!(
            Fits::of(&each(1.0, 1.0, 1.0), &Room { total: Resources::default(), ..room() }).share,
            0.0,
            "of a host that nobody knows"
        );
    }

    #[test]
    fn what_is_typical_passes_over_a_twentieth() {
        let point = |number: u64| Point { at: number, cpu: number as f32, memory: number * 10, disk: 7 };
        let points: Vec<Point> = (1..=100).map(point).collect();
        assert_eq!(typical(&points), Some(Resources { cpu: 95.0, memory: 950.0, disk: 7.0 }));
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn a_network_has_so_many_addresses() {
        assert_eq!([16, 24, 30, 32].map(addresses), [Some(65_533), Some(253), Some(1), Some(0)]);
        assert_eq!(addresses(33), None);
    }
}
